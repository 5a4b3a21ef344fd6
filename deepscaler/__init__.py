"""DeepScaler: holistic autoscaling of microservices with an adaptive-graph spatiotemporal GNN."""

import os

__version__ = "0.1.0"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; why: model/__init__.py
