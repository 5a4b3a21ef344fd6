"""What a run is worth, and how policies compare."""
