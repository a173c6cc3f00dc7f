"""What a stream's events add up to."""
