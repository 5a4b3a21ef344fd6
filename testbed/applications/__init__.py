"""Emulated applications: what a file may say, the application it describes, variations, and the truth."""
