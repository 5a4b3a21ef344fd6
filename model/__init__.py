"""Networks, graph learners and their training.

Torch and numpy only: nothing here knows files, `deepscaler.settings` or clusters.
"""
