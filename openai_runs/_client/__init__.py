"""The async client: resources over one pipeline, and the waits."""
