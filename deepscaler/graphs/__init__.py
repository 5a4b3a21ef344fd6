"""Graphs between services: priors, the structural graph, and how alike two graphs are."""
