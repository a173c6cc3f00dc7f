"""What to do next after an error: the sentences that follow what happened. Pure."""
