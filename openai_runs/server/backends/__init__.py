"""Where answers come from. A backend is one method: a model call in, events out."""
