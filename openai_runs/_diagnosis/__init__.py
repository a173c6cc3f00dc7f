"""What a setup is made of and whether it works, found out without changing anything."""
