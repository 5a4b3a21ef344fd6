"""Write Train-Ticket's manifests from services.csv: 41 services, 22 databases, the web pages and the gateway.

python benchmarks/train-ticket/make.py

services.csv says on which port each service listens, which path the gateway sends to it, and which database
it keeps (empty: none). Requests and limits come from testbed/apps/train_ticket.yaml. The file names are those
of the published README.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
TAG = "0.2.0"
DATABASES = {
    "mongo": ("docker.io/library/mongo:5.0.2-focal", 27017),
    "mysql": ("docker.io/library/mysql:5.6.35", 3306),
}
NOTE = "# Written by make.py from services.csv; change those. Names are those of config/train_ticket.yaml.\n"

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: {name}
          image: {image}
          ports: [{{name: {protocol}, containerPort: {port}}}]
{env}          readinessProbe:
            tcpSocket: {{port: {protocol}}}
            periodSeconds: {period}
            timeoutSeconds: 5
            failureThreshold: 5
          resources:
            requests: {{cpu: {cpu[0]}m, memory: {memory[0]}Mi}}
            limits: {{cpu: {cpu[1]}m, memory: {memory[1]}Mi}}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {port_name}, port: {port}, targetPort: {protocol}}}]
"""
GATEWAY = """\
# The way in to Train-Ticket: Istio's ingress gateway (node port 30001, deploy/cluster/istio.yaml) sends each
# path to its service and the rest to the web pages. In the published system the nginx of the web pages does
# so; here the gateway does, so that each service sees its entry requests.
#   kubectl apply -n train-ticket -f benchmarks/train-ticket/trainticket-gateway.yaml
# It takes any host name: have one application's gateway at a time, or give each its own `hosts`.
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: trainticket-gateway}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: trainticket}
spec:
  hosts: ["*"]
  gateways: [trainticket-gateway]
  http:
"""
ROUTE = """\
    - match: [{{uri: {{prefix: {path}}}}}]
      route:
        - destination: {{host: {service}, port: {{number: {port}}}}}
"""
PAGES = """\
    - route:
        - destination: {host: ts-ui-dashboard, port: {number: 8080}}
"""


def workload(
    name: str,
    image: str,
    protocol: str,
    port: int,
    cpu: tuple[int, int],
    memory: tuple[int, int],
    **extra: str | int,
) -> str:
    """A Deployment and its Service; cpu in millicores and memory in MiB are (request, limit)."""
    port_name = protocol if protocol == "http" else f"tcp-{protocol}"  # Istio reads the protocol off the name
    values = {
        "name": name,
        "image": image,
        "protocol": protocol,
        "port": port,
        "port_name": port_name,
        "cpu": cpu,
        "memory": memory,
    }
    values |= {"env": "", "period": 1} | extra
    return DEPLOYMENT.format_map(values) + "---\n" + SERVICE.format_map(values)


def database(name: str) -> str:
    """The database of one service, as in the published system; its data go with the pod."""
    kind = name.rpartition("-")[2]
    image, port = DATABASES[kind]
    env = (
        "          env: [{name: MYSQL_ROOT_PASSWORD, value: root}]  # built into the service's image\n"
        if kind == "mysql"
        else ""
    )
    return workload(name, image, kind, port, (50, 500), (100, 1000), env=env, period=5)


def join(title: str, documents: Iterable[str]) -> str:
    """The documents of one file below its title."""
    return title + NOTE + "---\n".join(documents)


def files() -> dict[str, str]:
    """The text of each manifest, by file name."""
    with (HERE / "services.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    pods = yaml.safe_load((HERE.parents[1] / "testbed/apps/train_ticket.yaml").read_text())["services"]
    services = []
    for row in rows:
        pod = pods[row["service"]]
        image = f"docker.io/codewisdom/{row['service']}:{TAG}"
        cpu = pod["request_millicores"], pod["limit_millicores"]
        memory = pod["memory_request_mib"], pod["memory_limit_mib"]
        services.append(workload(row["service"], image, "http", int(row["port"]), cpu, memory))
    pages = workload(
        "ts-ui-dashboard", f"docker.io/codewisdom/ts-ui-dashboard:{TAG}", "http", 8080, (50, 500), (100, 500)
    )
    apply = "#   kubectl apply -n train-ticket -f benchmarks/train-ticket/ts-deployment-part{}.yml\n"
    replicas = (
        "# `replicas` is left out: applying this file again doesn't undo what the autoscaler decided.\n"
        "# There are no liveness probes: under overload they would restart pods that are slow, not dead.\n"
        "# The images know their callees and ports.\n"
    )
    return {
        "ts-deployment-part1.yml": join(
            "# Train-Ticket 1/3: the databases (not scaled). Wait for them before part 2.\n"
            + apply.format(1),
            [database(row["database"]) for row in rows if row["database"]],
        ),
        "ts-deployment-part2.yml": join(
            "# Train-Ticket 2/3: the 41 services.\n" + apply.format(2) + replicas, services
        ),
        "ts-deployment-part3.yml": join(
            "# Train-Ticket 3/3: the web pages (not scaled, not modelled).\n" + apply.format(3), [pages]
        ),
        "trainticket-gateway.yaml": NOTE + GATEWAY + "".join(ROUTE.format_map(row) for row in rows) + PAGES,
    }


if __name__ == "__main__":
    for file_name, text in files().items():
        (HERE / file_name).write_text(text)
        print(HERE / file_name)
