"""Waiting for runs: one poller for each run, one scheduler for all of them."""
