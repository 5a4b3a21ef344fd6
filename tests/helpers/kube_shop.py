"""A shop of two services on an API server: its settings, its file of settings, and an emulated API server."""

import json
from pathlib import Path

from deepscaler.settings import Settings
from helpers.kube_stub import KubeStub, deployment
from testbed.kubernetes_api import KubernetesApi, KubernetesStore, PodState

CREATED, READY = "2026-01-05T00:00:00Z", "2026-01-05T00:00:12Z"
T0 = 1_767_571_200.0
NOWHERE = {"url": "http://127.0.0.1:1", "retries": 0}


def make(
    stub: KubeStub, tmp_path: Path, services=("web", "api"), scale=None, token="secret", **cluster
) -> Settings:
    config = stub.kubeconfig(tmp_path / "kubeconfig", token)
    return Settings.model_validate(
        {
            "app": {
                "name": "shop",
                "namespace": "shop",
                "services": services if isinstance(services, dict) else dict.fromkeys(services),
                "entries": [{"name": "GET /", "service": "web"}],
            },
            "cluster": {"kind": "kubernetes", "kubeconfig": config, "prometheus": NOWHERE, **cluster},
            "scale": scale or {},
        }
    )


def config(stub, tmp_path, **scale) -> str:
    settings = {"policy": "static", "static_replicas": {"web": 6}, "run_dir": str(tmp_path / "runs"), **scale}
    document = make(stub, tmp_path).model_dump(mode="json")
    document["scale"].update(settings)
    for part in ("prometheus", "jaeger"):
        document["cluster"][part] = {
            key: value for key, value in document["cluster"][part].items() if key in ("url", "retries")
        }
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps(document))
    return str(path)


class Emulated:
    """The testbed's API server with `web` and `api`, two ready pods each. It notes every request."""

    def __init__(self, tokens=None, clock=lambda: T0 + 100):
        self.store = KubernetesStore(clock=clock, **({"tokens": tokens} if tokens else {}))
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        for name in ("web", "api"):
            self.store.create(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    **deployment(name, namespace="shop"),
                    "status": {},
                }
            )
            self.pods(name, 2)
        self.methods: list[str] = []
        handle = self.store.handle

        def counted(method, path, *rest, **more):
            self.methods.append(f"{method} {path}")
            return handle(method, path, *rest, **more)

        self.store.handle = counted
        self.server = KubernetesApi(self.store)

    def pods(self, name, ready, starting=0):
        states = [
            PodState(f"{name}-5d9c5b8f6d-{i:05d}", T0, T0 + 20 if i < ready else None)
            for i in range(ready + starting)
        ]
        self.store.sync_pods("shop", name, states)

    def kubeconfig(self, path, token="secret"):
        return str(self.server.write_kubeconfig(path, "shop", token))

    @property
    def writes(self):
        return [method for method in self.methods if not method.startswith("GET")]
