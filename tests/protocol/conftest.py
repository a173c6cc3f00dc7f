"""Property tests of the protocol: no deadline per example, since no test asserts timing."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
