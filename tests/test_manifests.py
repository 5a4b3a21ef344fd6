"""The manifests in benchmarks/ are valid, agree with the settings, and the API accepts them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helpers import recordings
from helpers.paths import ROOT
from kubernetes import client

from deepscaler.settings import Settings, load_settings
from sendFlow.routes import ROUTES
from testbed.kubernetes_api import KubernetesApi, KubernetesStore

APPLICATIONS = {
    "bookinfo": ("bookinfo/bookinfo.yaml", "bookinfo/bookinfo-gateway.yaml"),
    "boutique": ("boutique/boutique.yaml", "boutique/boutique-gateway.yaml"),
    "train_ticket": (
        *(f"train-ticket/ts-deployment-part{part}.yml" for part in (1, 2, 3)),
        "train-ticket/trainticket-gateway.yaml",
    ),
}
HELPERS = {
    "redis-cart",
    "ts-ui-dashboard",
}  # deployed, but neither scaled nor modelled; names tell which are databases
NOT_DEPLOYED = {
    "SHOPPING_ASSISTANT_SERVICE_ADDR"
}  # the frontend starts only if it is set, and never calls it
MODELS: dict[tuple[str, str], Any] = {
    ("apps/v1", "Deployment"): client.V1Deployment,
    ("v1", "Service"): client.V1Service,
}
REGISTRIES = re.compile(
    r"(gcr\.io/google-samples/microservices-demo/[a-z]+|docker\.io/(istio/examples-bookinfo-[a-z]+-v[123]|codewisdom/ts-[a-z0-9-]+|library/[a-z]+))"
    r":(?P<tag>v?[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z]+)?)"
)
# The part of Istio's networking API that is in use. Anything else is refused, so typing errors are found.
PORT = {
    "type": "object",
    "required": ["number"],
    "additionalProperties": False,
    "properties": {"number": {"type": "integer"}},
}
DESTINATION = {
    "type": "object",
    "required": ["host", "port"],
    "additionalProperties": False,
    "properties": {"host": {"type": "string"}, "port": PORT, "subset": {"type": "string"}},
}
URI = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
    "properties": {kind: {"type": "string", "pattern": "^/"} for kind in ("exact", "prefix")},
}
GATEWAY_SPEC = {
    "type": "object",
    "required": ["selector", "servers"],
    "additionalProperties": False,
    "properties": {
        "selector": {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
        "servers": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["port", "hosts"],
                "additionalProperties": False,
                "properties": {
                    "hosts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    "port": {
                        "type": "object",
                        "required": ["number", "name", "protocol"],
                        "additionalProperties": False,
                        "properties": {
                            "number": {"type": "integer", "minimum": 1, "maximum": 65535},
                            "name": {"type": "string"},
                            "protocol": {"enum": ["HTTP", "HTTP2", "GRPC"]},
                        },
                    },
                },
            },
        },
    },
}
VIRTUAL_SERVICE_SPEC = {
    "type": "object",
    "required": ["hosts", "gateways", "http"],
    "additionalProperties": False,
    "properties": {
        "hosts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "gateways": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "http": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["route"],
                "additionalProperties": False,
                "properties": {
                    "match": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["uri"],
                            "additionalProperties": False,
                            "properties": {"uri": URI},
                        },
                    },
                    "route": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["destination"],
                            "additionalProperties": False,
                            "properties": {"destination": DESTINATION},
                        },
                    },
                },
            },
        },
    },
}
ISTIO = {
    ("networking.istio.io/v1", "Gateway"): GATEWAY_SPEC,
    ("networking.istio.io/v1", "VirtualService"): VIRTUAL_SERVICE_SPEC,
}


@cache
def documents(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def objects(application: str, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind that an application has, by name."""
    found = [
        item
        for file in APPLICATIONS[application]
        for item in documents(ROOT / "benchmarks" / file)
        if item["kind"] == kind
    ]
    assert len({item["metadata"]["name"] for item in found}) == len(found), "two objects of one name"
    return {item["metadata"]["name"]: item for item in found}


def configured(application: str) -> Settings:
    return load_settings(ROOT / "config" / f"{application}.yaml")


def pods(application: str) -> dict[str, Any]:
    """The services of an application file of the testbed."""
    loaded = yaml.safe_load((ROOT / "testbed/apps" / f"{application}.yaml").read_text(encoding="utf-8"))
    return dict(loaded["services"])


def template(deployment: dict[str, Any]) -> dict[str, Any]:
    return dict(deployment["spec"]["template"])


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = template(deployment)["spec"]["containers"]
    return dict(only)


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(deployment).get("env", [])}


def deployments_of(application: str, service: str) -> list[str]:
    """Names of the Deployments that are one service."""
    spec = configured(application).app.services[service]
    scaled = spec.deployment or (spec.workloads or [service])[0]
    return list(dict.fromkeys([scaled, *(spec.workloads or [])]))


def is_helper(name: str) -> bool:
    return name in HELPERS or name.endswith(("-mongo", "-mysql"))


def applications() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("application", APPLICATIONS)


def manifest_files() -> list[Path]:
    return [ROOT / "benchmarks" / file for files in APPLICATIONS.values() for file in files]


# --------------------------------------------------------------------------------------------------- validity
@pytest.mark.parametrize("path", manifest_files(), ids=lambda path: path.name)
def test_every_object_is_one_that_its_api_knows_field_by_field(path: Path) -> None:
    for item in documents(path):
        which = (item["apiVersion"], item["kind"])
        if which in ISTIO:
            assert set(item) == {"apiVersion", "kind", "metadata", "spec"}
            client.V1ObjectMeta.model_validate(item["metadata"])
            jsonschema.validate(item["spec"], ISTIO[which])
        else:
            model = MODELS[which].model_validate(item)
            assert model.model_dump(by_alias=True, exclude_none=True) == item, (
                f"{item['metadata']['name']}: a field under another name"
            )


def test_the_models_refuse_a_misspelt_field() -> None:
    item = {**objects("boutique", "Deployment")["frontend"], "specs": {}}
    with pytest.raises(ValueError, match="specs"):
        client.V1Deployment.model_validate(item)


@pytest.mark.parametrize("path", manifest_files(), ids=lambda path: path.name)
def test_the_namespace_comes_from_the_command_line(path: Path) -> None:
    assert all("namespace" not in item["metadata"] for item in documents(path))


@applications()
def test_every_image_is_public_and_has_a_tag(application: str) -> None:
    for name, deployment in objects(application, "Deployment").items():
        image = container(deployment)["image"]
        assert REGISTRIES.fullmatch(image), f"{name}: {image}"


@applications()
def test_applying_again_leaves_replicas_to_the_autoscaler(application: str) -> None:
    assert all(
        "replicas" not in deployment["spec"] for deployment in objects(application, "Deployment").values()
    )


@applications()
def test_selectors_match_labels_and_each_pod_has_one_owner(application: str) -> None:
    deployments = objects(application, "Deployment")
    for name, deployment in deployments.items():
        selector = deployment["spec"]["selector"]["matchLabels"].items()
        owned = [
            other
            for other, found in deployments.items()
            if selector <= template(found)["metadata"]["labels"].items()
        ]
        assert owned == [name]


@applications()
def test_services_select_their_pods_and_name_their_ports(application: str) -> None:
    deployments = objects(application, "Deployment")
    for name, service in objects(application, "Service").items():
        selector = service["spec"]["selector"].items()
        chosen = [
            deployment
            for deployment in deployments.values()
            if selector <= template(deployment)["metadata"]["labels"].items()
        ]
        expected = (
            deployments_of(application, name) if name in configured(application).app.services else [name]
        )
        assert sorted(item["metadata"]["name"] for item in chosen) == sorted(expected)
        for port in service["spec"]["ports"]:
            assert re.match(r"(http|grpc|tcp)(-|$)", port["name"]), (
                f"{name}: Istio can't tell the protocol of port {port['name']!r}"
            )
            for deployment in chosen:
                assert port["targetPort"] in {item["name"] for item in container(deployment)["ports"]}


@applications()
def test_probes_ask_a_port_that_the_container_has(application: str) -> None:
    for name, deployment in objects(application, "Deployment").items():
        ports = {
            key for item in container(deployment)["ports"] for key in (item["name"], item["containerPort"])
        }
        probe = container(deployment)["readinessProbe"]
        (action,) = [probe[kind] for kind in ("httpGet", "grpc", "tcpSocket") if kind in probe]
        assert action["port"] in ports, name
        assert "livenessProbe" not in container(deployment), f"{name}: would restart pods that are only slow"


# ---------------------------------------------------------------------------------- configuration and testbed
@applications()
def test_services_deployments_and_containers_are_those_of_the_configuration(application: str) -> None:
    deployments = objects(application, "Deployment")
    services = configured(application).app.services
    assert {name for name in objects(application, "Service") if not is_helper(name)} == set(services)
    expected = {name: service for service in services for name in deployments_of(application, service)}
    assert {name for name in deployments if not is_helper(name)} == set(expected)
    for name, service in expected.items():
        assert container(deployments[name])["name"] == (services[service].container or service)


@applications()
def test_requests_limits_and_readiness_are_those_of_the_testbed(application: str) -> None:
    deployments, loaded = objects(application, "Deployment"), pods(application)
    period = yaml.safe_load((ROOT / "testbed/apps" / f"{application}.yaml").read_text())[
        "readiness_period_seconds"
    ]
    for service, pod in loaded.items():
        for name in deployments_of(application, service):
            assert container(deployments[name])["resources"] == {
                "requests": {
                    "cpu": f"{pod['request_millicores']}m",
                    "memory": f"{pod['memory_request_mib']}Mi",
                },
                "limits": {"cpu": f"{pod['limit_millicores']}m", "memory": f"{pod['memory_limit_mib']}Mi"},
            }
            probe = container(deployments[name])["readinessProbe"]
            assert (probe["periodSeconds"], "initialDelaySeconds" in probe) == (period, False)


def addresses(application: str, deployment: dict[str, Any]) -> dict[str, str]:
    """The variables that name another service, each with its host:port."""
    env = environment(deployment)
    found = {
        name: value for name, value in env.items() if name.endswith("_ADDR") and name not in NOT_DEPLOYED
    }
    for name, host in env.items():
        if name.endswith("_HOSTNAME"):
            found[name] = f"{host}:{env[name.replace('_HOSTNAME', '_SERVICE_PORT')]}"
    return found


@applications()
def test_every_address_in_the_environment_is_a_service_and_its_port(application: str) -> None:
    known = {
        f"{name}:{port['port']}"
        for name, item in objects(application, "Service").items()
        for port in item["spec"]["ports"]
    }
    for name, deployment in objects(application, "Deployment").items():
        for variable, address in addresses(application, deployment).items():
            assert address in known, f"{name}: {variable}={address}"


def called_in_testbed(application: str) -> set[tuple[str, str]]:
    """Edges of the testbed's call graph."""
    from testbed.applications.application import Call, Parallel
    from testbed.applications.loading import load_application

    app = load_application(application)

    def below(caller: int, steps: tuple[Call | Parallel, ...]) -> Iterator[tuple[str, str]]:
        for step in steps:
            if isinstance(step, Parallel):
                yield from below(caller, step.calls)
            else:
                yield app.service_names[caller], app.service_names[step.service]
                yield from below(step.service, step.calls)

    return {edge for endpoint in app.endpoints for edge in below(endpoint.service, endpoint.calls)}


BOUTIQUE_EDGES = {
    "frontend": {
        "productcatalogservice",
        "currencyservice",
        "cartservice",
        "recommendationservice",
        "shippingservice",
        "checkoutservice",
        "adservice",
    },
    "checkoutservice": {
        "productcatalogservice",
        "shippingservice",
        "paymentservice",
        "emailservice",
        "currencyservice",
        "cartservice",
    },
    "recommendationservice": {"productcatalogservice"},
    "cartservice": {"redis-cart"},
}
BOOKINFO_EDGES = {"productpage": {"details", "reviews", "ratings"}, "reviews": {"ratings"}}


@pytest.mark.parametrize(
    ("application", "edges"), [("boutique", BOUTIQUE_EDGES), ("bookinfo", BOOKINFO_EDGES)]
)
def test_the_environment_states_the_call_graph(application: str, edges: dict[str, set[str]]) -> None:
    found: dict[str, set[str]] = {}
    owner = {name: service for service in pods(application) for name in deployments_of(application, service)}
    for name, deployment in objects(application, "Deployment").items():
        callees = {address.partition(":")[0] for address in addresses(application, deployment).values()}
        if callees:
            found.setdefault(owner[name], set()).update(callees)
    assert found == edges
    assert called_in_testbed(application) <= {
        (caller, callee) for caller, callees in found.items() for callee in callees
    }


@pytest.mark.parametrize(
    ("application", "edges"), [("boutique", BOUTIQUE_EDGES), ("bookinfo", BOOKINFO_EDGES)]
)
def test_the_call_graph_here_is_the_recorded_one(application: str, edges: dict[str, set[str]]) -> None:
    left_out = {
        ("loadgenerator", "frontend"),
        ("ratings", "mongodb"),
    }  # sendFlow/ loads; ratings-v1 keeps its rows in memory
    recorded = {(row["caller"], row["callee"]) for row in recordings.table(f"{application}_edges")} - left_out
    assert {(caller, callee) for caller, callees in edges.items() for callee in callees} == recorded


def test_train_tickets_built_in_callees_are_services_at_the_ports_its_images_know() -> None:
    services = objects("train_ticket", "Service")
    for row in recordings.table("train_ticket_edges"):
        if row["both_deployed"] == "yes":
            assert {row["caller"], row["callee"]} <= set(services)
    assert {row["service"]: row["port"] for row in recordings.table("train_ticket_services")} == {
        name: str(item["spec"]["ports"][0]["port"]) for name, item in services.items() if not is_helper(name)
    }


def test_train_ticket_has_the_63_workloads_of_its_release_and_the_web_pages() -> None:
    deployments = set(objects("train_ticket", "Deployment"))
    assert len(deployments - {"ts-ui-dashboard"}) == 63
    assert deployments == set(objects("train_ticket", "Service"))


def test_train_tickets_files_are_what_their_script_writes() -> None:
    path = ROOT / "benchmarks/train-ticket/make.py"
    spec = importlib.util.spec_from_file_location("train_ticket_make", path)
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name, text in make.files().items():
        assert (path.parent / name).read_text(encoding="utf-8") == text, (
            f"{name}: run python benchmarks/train-ticket/make.py"
        )


# --------------------------------------------------------------------------------------------------- gateways
def routed(application: str, path: str) -> str:
    """The Service that the gateway sends a path to: the first match, as Istio has it."""
    (virtual,) = objects(application, "VirtualService").values()
    for rule in virtual["spec"]["http"]:
        uris = [match["uri"] for match in rule.get("match", [])]
        if not uris or any(
            path == uri.get("exact") or path.startswith(uri.get("prefix", "\0")) for uri in uris
        ):
            return str(rule["route"][0]["destination"]["host"])
    raise AssertionError(f"{path} goes nowhere")


@applications()
def test_gateways_lead_to_services_that_exist(application: str) -> None:
    (gateway,) = objects(application, "Gateway")
    (virtual,) = objects(application, "VirtualService").values()
    assert virtual["spec"]["gateways"] == [gateway]
    services = objects(application, "Service")
    for rule in virtual["spec"]["http"]:
        target = rule["route"][0]["destination"]
        assert target["port"]["number"] in {
            port["port"] for port in services[target["host"]]["spec"]["ports"]
        }


@applications()
def test_every_url_of_the_load_generators_reaches_its_entry(application: str) -> None:
    entries = {entry.name: entry.service for entry in configured(application).app.entries}
    asked = {route.endpoint for route in ROUTES[application]}
    assert asked == set(entries)
    for route in ROUTES[application]:
        assert routed(application, re.sub(r"\{\w+\}", "1", route.pattern)) == entries[route.endpoint], (
            route.pattern
        )


def test_train_tickets_gateway_reaches_all_services_and_the_pages() -> None:
    (virtual,) = objects("train_ticket", "VirtualService").values()
    hosts = [rule["route"][0]["destination"]["host"] for rule in virtual["spec"]["http"]]
    assert sorted(hosts) == sorted([*configured("train_ticket").app.services, "ts-ui-dashboard"])
    for rule in virtual["spec"]["http"][:-1]:  # no rule hides behind an earlier one
        assert (
            routed("train_ticket", rule["match"][0]["uri"]["prefix"])
            == rule["route"][0]["destination"]["host"]
        )
    assert routed("train_ticket", "/index.html") == "ts-ui-dashboard"


# ------------------------------------------------------------------------------------------------ the cluster
def test_the_readmes_node_ports_are_opened() -> None:
    (istio,) = documents(ROOT / "deploy/cluster/istio.yaml")
    (ingress,) = istio["spec"]["components"]["ingressGateways"]
    service = ingress["k8s"]["service"]
    assert (service["type"], [port["nodePort"] for port in service["ports"] if port["port"] == 80]) == (
        "NodePort",
        [30001],
    )
    (prometheus,) = documents(ROOT / "deploy/cluster/prometheus.yaml")
    assert prometheus["prometheus"]["service"] == {"type": "NodePort", "nodePort": 30090}
    assert (
        prometheus["prometheus"]["prometheusSpec"]["scrapeInterval"]
        == f"{configured('boutique').collect.step:.0f}s"
    )
    (kind,) = documents(ROOT / "deploy/cluster/kind.yaml")
    mapped = [(item["containerPort"], item["hostPort"]) for item in kind["nodes"][0]["extraPortMappings"]]
    assert mapped == [(30001, 30001), (30090, 30090)]


def test_the_charts_values_keep_the_series_that_limits_are_read_from() -> None:
    (values,) = documents(ROOT / "deploy/cluster/prometheus.yaml")
    assert values["kubelet"]["serviceMonitor"]["cAdvisorMetricRelabelings"] == []
    monitors = {
        item["name"]: item["podMetricsEndpoints"][0] for item in values["prometheus"]["additionalPodMonitors"]
    }
    kept = re.compile(monitors["istio-proxies"]["metricRelabelings"][0]["regex"])
    assert all(
        kept.fullmatch(name)
        for name in ("istio_requests_total", "istio_request_duration_milliseconds_bucket")
    )


def test_spans_go_where_istio_was_told_that_jaeger_is() -> None:
    (istio,) = documents(ROOT / "deploy/cluster/istio.yaml")
    (telemetry,) = documents(ROOT / "deploy/cluster/telemetry.yaml")
    providers = {item["name"] for item in istio["spec"]["meshConfig"]["extensionProviders"]}
    assert {item["name"] for rule in telemetry["spec"]["tracing"] for item in rule["providers"]} <= providers


# -------------------------------------------------------------------------------------------------- the pages
PAGES = ("setUp-k8s.md", "docs/cluster.md")
SCRIPTS = ("predict_scale", "metrics_fetch", "data_process", "main", "calculate", "similarity")


def commands(page: str) -> list[str]:
    """The commands in the code blocks of a page, one per line."""
    blocks = re.findall(
        r"^```\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES)
def test_files_that_commands_name_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    made = {
        "config/cluster.yaml",
        "model_states/boutique/AdapGLA.pt",
        "model_states/boutique",
    }  # by an earlier command of the page
    named = (
        set(
            re.findall(
                r"(?<![\w/$.}])(?:benchmarks|deploy|config|sendFlow|tests|docs|model_states)/[\w./-]+\w", text
            )
        )
        - made
    )
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_pages_deploy_every_manifest_into_the_namespace_of_the_configuration() -> None:
    applied = [re.search(r"kubectl apply -n (\S+) -f (\S+)", line) for line in commands("docs/cluster.md")]
    found = {(match[1], match[2]) for match in applied if match}
    for application, files in APPLICATIONS.items():
        namespace = configured(application).app.namespace
        assert {(namespace, f"benchmarks/{file}") for file in files} <= found
        assert f"kubectl label namespace {namespace} istio-injection=enabled" in commands("docs/cluster.md")


def test_the_pages_python_commands_are_ones_that_the_scripts_take() -> None:
    lines = [line.partition(" #")[0].split() for page in PAGES for line in commands(page)]
    asked = [
        words[1:]
        for words in lines
        if words[0].endswith("python") and words[1].removesuffix(".py") in SCRIPTS
    ]
    assert len(asked) >= 6
    for script, *arguments in asked:
        module = importlib.import_module(script.removesuffix(".py"))
        if "--help" not in arguments:
            module.build_parser().parse_args(arguments)


@pytest.mark.parametrize("app", ["boutique", "bookinfo", "train_ticket"])
def test_one_word_turns_a_configuration_to_the_cluster(app: str, tmp_path: Path) -> None:
    (line,) = [line for line in commands("docs/cluster.md") if line.startswith("printf ")]
    shutil.copytree(ROOT / "config", tmp_path / "config")
    subprocess.run(line.replace("boutique", app), shell=True, cwd=tmp_path, check=True)
    settings = load_settings(tmp_path / "config/cluster.yaml")
    assert (settings.cluster.kind, settings.process.label) == ("kubernetes", "offered")
    assert settings.scale.bundle == f"model_states/{app}/AdapGLQ.pt"


@pytest.mark.parametrize(
    "path",
    [
        *manifest_files(),
        *sorted((ROOT / "deploy/cluster").glob("*.yaml")),
        *sorted((ROOT / "deploy").glob("*.yaml")),
    ],
    ids=lambda path: path.name,
)
def test_the_command_in_a_files_head_names_that_file(path: Path) -> None:
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(
        f"{how} {path.relative_to(ROOT)}" in line
        for how in ("-f", "--config", "promtool check rules", "promtool test rules")
        for line in head
    )


# ------------------------------------------------------------------------------------------- applied for real
UNSERVED = {"PodDisruptionBudget", "NetworkPolicy", "Job"}
"""Kinds that the emulated API doesn't have."""
# Commands of docs/cluster.md that the emulated API can answer; Istio's gateways aren't served there.
RUNNABLE = re.compile(r"kubectl (create|label|apply -[nk]|auth can-i) (?!.*-gateway\.yaml)")


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi(KubernetesStore()) as server:
        yield server


def contained(given: Any, kept: Any) -> bool:
    """Whether the API server kept all that it was given; it adds defaults."""
    if isinstance(given, dict):
        return isinstance(kept, dict) and all(
            key in kept and contained(value, kept[key]) for key, value in given.items()
        )
    if isinstance(given, list):
        return isinstance(kept, list) and len(given) == len(kept) and all(map(contained, given, kept))
    return bool(given == kept)


@applications()
def test_the_api_keeps_every_deployment_and_service_as_given(application: str, api: KubernetesApi) -> None:
    namespace = configured(application).app.namespace
    with client.ApiClient(client.Configuration(host=api.url)) as connection:
        core, apps = client.CoreV1Api(connection), client.AppsV1Api(connection)
        core.create_namespace({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        deployments, services = objects(application, "Deployment"), objects(application, "Service")
        for item in deployments.values():
            apps.create_namespaced_deployment(namespace, client.V1Deployment.model_validate(item))
        for item in services.values():
            core.create_namespaced_service(namespace, client.V1Service.model_validate(item))
        listed = apps.list_namespaced_deployment(namespace).items
        assert {item.metadata.name: item.spec.replicas for item in listed} == dict.fromkeys(deployments, 1)
        for name, item in deployments.items():
            kept = apps.read_namespaced_deployment(name, namespace).model_dump(
                by_alias=True, exclude_none=True
            )
            assert contained(item, kept), name
        for name, item in services.items():
            kept = core.read_namespaced_service(name, namespace).model_dump(by_alias=True, exclude_none=True)
            assert contained(item, kept), name


@pytest.fixture
def kubectl(api: KubernetesApi, tmp_path: Path) -> Any:
    """Runs a command line against the API, in a directory like the root of the repository after training."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine")
    kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
    root = tmp_path / "root"
    (root / "model_states/boutique").mkdir(parents=True)
    (root / "model_states/boutique/AdapGLA.pt").write_bytes(bytes(range(256)))
    for name in ("benchmarks", "deploy", "config"):
        (root / name).symlink_to(ROOT / name)

    def run(words: list[str], text: str | None = None) -> str:
        line = ["kubectl", f"--kubeconfig={kubeconfig}", f"--cache-dir={tmp_path / 'cache'}", *words]
        ran = subprocess.run(
            line, cwd=root, capture_output=True, text=True, input=text, timeout=120, check=False
        )
        said_no = words[:2] == ["auth", "can-i"] and ran.stdout.strip() == "no"  # and exit 1
        assert ran.returncode == 0 or said_no, f"kubectl {shlex.join(words)}: {ran.stderr}"
        return ran.stdout.strip()

    def answer(line: str) -> str:
        words = shlex.split(line, comments=True)[1:]
        if words[:2] == ["create", "configmap"]:
            # kubectl sends these as protobuf, which the emulated API can't read: apply instead
            return run(["apply", "-f", "-"], run([*words, "--dry-run=client", "-o", "yaml"]))
        if words[:2] == ["apply", "-k"]:
            rendered = yaml.safe_load_all(run(["kustomize", words[2]]))
            served = [one for one in rendered if one["kind"] not in UNSERVED]
            return run(["apply", "-f", "-"], yaml.safe_dump_all(served)) if served else ""
        return run(words)

    return answer


def test_applying_again_keeps_the_replicas_that_were_decided(kubectl: Any) -> None:
    kubectl("kubectl create namespace boutique")
    apply = "kubectl apply -n boutique -f benchmarks/boutique/boutique.yaml"
    assert kubectl(apply).count(" created") == 22
    kubectl("kubectl scale -n boutique deployment/frontend --replicas=5")
    assert kubectl(apply).count(" unchanged") == 22
    assert kubectl("kubectl get deployment frontend -n boutique -o jsonpath={.spec.replicas}") == "5"


def test_the_pages_kubectl_commands_run_and_the_rights_come_in_two_steps(kubectl: Any) -> None:
    lines = [line for line in commands("docs/cluster.md") if RUNNABLE.match(line)]
    answers = [kubectl(line) for line in lines]
    asked = [
        (answer, line.rpartition("#")[2].strip())
        for line, answer in zip(lines, answers, strict=True)
        if " can-i " in line
    ]
    assert asked == [("no", "no"), ("yes", "yes")]
    for application in APPLICATIONS:
        namespace = configured(application).app.namespace
        found = kubectl(
            f"kubectl get deployments -n {namespace} -o jsonpath={{.items[*].metadata.name}}"
        ).split()
        assert set(found) == set(objects(application, "Deployment"))
        assert (
            kubectl(f"kubectl get namespace {namespace} -o jsonpath={{.metadata.labels.istio-injection}}")
            == "enabled"
        )
    assert kubectl("kubectl get deployment deepscaler -n deepscaler -o jsonpath={.spec.replicas}") == "2"
