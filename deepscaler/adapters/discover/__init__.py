"""Drafting the settings of an application from the namespace that it runs in: `python -m deepscaler.adapters.discover`."""
