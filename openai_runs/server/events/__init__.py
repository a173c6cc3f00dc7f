"""Changes after each commit: who is woken by them, and who reads a run's events."""
