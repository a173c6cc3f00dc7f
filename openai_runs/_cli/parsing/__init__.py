"""The commands with their arguments and help; what they do is in `commands`."""
