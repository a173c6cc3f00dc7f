"""The resources: `client.runs` and its siblings, a few lines a method."""
