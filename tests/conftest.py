"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("any machine", deadline=None, derandomize=True)
settings.load_profile("any machine")
