"""Scaling policies: one interface, one controller."""
