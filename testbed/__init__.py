"""The emulated cluster: applications, the request-level engine, the virtual cluster and experiments on it."""

from testbed.cluster.virtual import VirtualCluster, collect, connect

__all__ = ["VirtualCluster", "collect", "connect"]
