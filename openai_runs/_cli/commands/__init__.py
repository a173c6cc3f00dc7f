"""What each command does and prints, one file for each."""
