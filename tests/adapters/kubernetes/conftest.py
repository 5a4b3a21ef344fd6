"""API servers with a shop of two services."""

import pytest
from helpers.kube_shop import CREATED, READY, Emulated, make
from helpers.kube_stub import DEPLOYMENTS, PODS, KubeStub, deployment, pod

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster


@pytest.fixture
def stub():
    with KubeStub() as server:
        yield server


@pytest.fixture
def shop(stub, tmp_path):
    """web and api with two replicas each, all ready; returns what makes a cluster of them."""
    for name in ("web", "api"):
        stub.put(DEPLOYMENTS, deployment(name))
        for index in range(2):
            stub.put(PODS, pod(name, index, CREATED, READY))
    return lambda **changes: KubernetesCluster(make(stub, tmp_path, **changes))


@pytest.fixture
def emulated():
    world = Emulated()
    with world.server:
        yield world
