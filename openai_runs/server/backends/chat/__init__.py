"""The backend in front of a `/chat/completions` endpoint."""
