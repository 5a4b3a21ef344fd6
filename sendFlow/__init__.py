"""Load: traces and shapes, and the Locust users of each application."""
