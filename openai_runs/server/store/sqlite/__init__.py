"""What is SQLite's alone: connections, opening a file, the writer thread, the lock."""
