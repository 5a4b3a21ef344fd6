"""Scaling policies: one interface, one controller. `deepscaler.policies.registry` makes them by name."""
