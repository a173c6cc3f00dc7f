"""The protocol as pure functions and tables: no waiting, clock, chance or log in here."""
