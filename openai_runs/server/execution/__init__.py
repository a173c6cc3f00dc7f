"""Execution of runs: which run is executed when, one execution of it, and what it writes."""
