"""DeepScaler: holistic autoscaling of microservices with an adaptive-graph spatiotemporal GNN."""

__version__ = "0.1.0"
