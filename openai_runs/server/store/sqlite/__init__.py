"""What is SQLite's alone: the writer thread, and the lock beside the file."""
