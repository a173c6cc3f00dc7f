"""Changes after each commit: who is notified of them, and who reads a run's events."""
