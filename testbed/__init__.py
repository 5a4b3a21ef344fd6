"""The emulated cluster: applications, the request-level engine, the virtual cluster and experiments on it."""

from testbed.cluster.collection import collect, connect
from testbed.cluster.virtual import VirtualCluster

__all__ = ["VirtualCluster", "collect", "connect"]
