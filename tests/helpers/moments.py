"""Moments that tests agree on, in seconds since the epoch."""

START = 1_767_571_200.0
"""2026-01-05T00:00:00Z."""
