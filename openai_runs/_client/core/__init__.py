"""One request: its pipeline, its time, and what all requests of a client share."""
