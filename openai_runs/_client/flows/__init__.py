"""Calls made of several requests: create-run, tool outputs, the tool loop, batches, results."""
