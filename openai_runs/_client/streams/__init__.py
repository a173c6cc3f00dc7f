"""Streams: a run as it happens, over one connection or several."""
