"""Drafts the settings of an application from its namespace: `python -m deepscaler.adapters.discover`."""
