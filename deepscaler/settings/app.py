"""Which application is scaled, and the cluster in which it runs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from deepscaler.settings.base import Count, Headers, Positive, Secret, Section, Url
from deepscaler.settings.matchers import check_matchers

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def check_name(where: str, name: str, *, dots: bool = False) -> None:
    """Refuse what Kubernetes would refuse as a name.

    Args:
        where: the key of the settings that says the name.
        name: what is checked.
        dots: whether it may have dots and 253 characters (Deployments, Leases), or none and 63 (namespaces,
            containers).

    Raises:
        ValueError: it is no such name; one line.

    Source: RFC 1123, as Kubernetes applies it.
    """
    if not (_SUBDOMAIN if dots else _LABEL).fullmatch(name):
        allowed = f"a-z, 0-9{', - and .' if dots else ' and -'}, at most {253 if dots else 63} characters"
        raise ValueError(
            f"{where}: {name!r} can't be a name in Kubernetes: {allowed}, a letter or digit at both ends"
        )


class Service(Section):
    """How one service is found in the cluster; without these keys, every name is the service's own."""

    deployment: str | None = Field(
        None, description="Deployment that is scaled; null: the first of `workloads`, else the service's name"
    )
    container: str | None = Field(
        None, description="container whose CPU and memory count; null: the service's name"
    )
    workloads: list[str] | None = Field(
        None,
        description="Istio workloads whose requests count as the service's (reviews-v1, reviews-v2); "
        "null: `deployment`, else the service's name; `deployment` alone is asked for all that they need",
    )
    scaled: bool = Field(True, description="false: the service is observed but never scaled")


class Entry(Section):
    """An endpoint at which users enter the application, with its objectives."""

    name: str = Field(description="endpoint, as the load generator and the reports name it")
    service: str = Field(description="service that receives its requests")
    sla: Positive = Field(0.2, description="bound on the mean response time of each minute, in seconds")
    slo: Positive = Field(
        0.5,
        description="bound on the response time of a single request, in seconds; a request above it is slow",
    )


def _values_or_nothing(schema: dict[str, Any]) -> None:
    """Lets editors accept a service without keys, as in `frontend:`."""
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "null"}]}


class App(Section):
    """The application: its name, its services and the endpoints at which users enter it."""

    name: str = Field(description="name of the application; a trained bundle belongs to one application")
    namespace: str = Field("default", description="Kubernetes namespace that holds the Deployments")
    services: dict[str, Service] = Field(
        description="the services by name, in the order of all results",
        json_schema_extra=_values_or_nothing,
    )
    entries: list[Entry] = Field(description="the endpoints at which users enter, with their objectives")

    @model_validator(mode="before")
    @classmethod
    def _bare_services(cls, data: Any) -> Any:
        """Accepts a service without keys, as in `frontend:`."""
        if isinstance(data, dict) and isinstance(data.get("services"), dict):
            data = {**data, "services": {name: value or {} for name, value in data["services"].items()}}
        return data

    @model_validator(mode="after")
    def _entries_name_services(self) -> Self:
        for entry in self.entries:
            if entry.service not in self.services:
                raise ValueError(
                    f"entry {entry.name!r} names unknown service {entry.service!r}; "
                    f"services: {', '.join(self.services)}"
                )
        return self

    def check_names(self) -> None:
        """Refuse names that Kubernetes would refuse, of the namespace and of the services that are scaled.

        Raises:
            ValueError: one of them is no name.
        """
        check_name("app.namespace", self.namespace)
        for name, service in self.services.items():
            if service.scaled:
                deployment = service.deployment or (service.workloads or [name])[0]
                check_name(f"app.services.{name}, its Deployment", deployment, dots=True)
                if service.container:
                    check_name(f"app.services.{name}.container", service.container)


class Prometheus(Section):
    """Where metrics come from on a real cluster: any server that speaks Prometheus's query API."""

    url: Url = Field("http://127.0.0.1:30090", description="address of the server, with its path prefix")
    token: Secret | None = Field(None, description="bearer token")
    token_file: str | None = Field(
        None, description="file that holds the bearer token; it is read again for each request"
    )
    username: str | None = Field(
        None, description="user name of basic authentication; it needs `password` as well"
    )
    password: Secret | None = Field(None, description="password of basic authentication")
    ca_file: str | None = Field(
        None,
        description="file with the certificate authority of an https server; null: the system's authorities",
    )
    headers: Headers = Field({}, description="headers sent with each request (X-Scope-OrgID: tenant)")
    matchers: Annotated[str, AfterValidator(check_matchers)] = Field(
        "",
        description="label matchers that every built-in query carries, where the server holds series of "
        'other clusters or several scrapes of this one (cluster="prod", job!="old")',
    )
    timeout: Positive = Field(30.0, description="seconds after which a request is given up")
    retries: Annotated[int, Field(ge=0)] = Field(
        3, description="how often a request is repeated after a connection error, a status of 5xx or 429"
    )

    @model_validator(mode="after")
    def _one_authentication(self) -> Self:
        given = [key for key in ("token", "token_file", "username") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of token, token_file, username; found {' and '.join(given)}")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        return self


class Jaeger(Section):
    """Jaeger's query service, which tells the calls between services where `cluster.call_graph` is jaeger."""

    url: Url = Field(
        "http://127.0.0.1:16686",
        description="address of the query service, with its path prefix (/jaeger in Istio's sample)",
    )
    token: Secret | None = Field(None, description="bearer token")
    headers: Headers = Field({}, description="headers sent with each request")
    sampling: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="share of requests that are traced (Istio's default is 0.01); counts are divided by it",
    )
    timeout: Positive = Field(30.0, description="seconds after which a request is given up")


class Lease(Section):
    """The Kubernetes Lease by which replicas of the controller elect the one that writes."""

    enabled: bool = Field(True, description="false: nothing keeps two controllers from writing at once")
    name: str | None = Field(None, description="name of the Lease; null: `deepscaler-<app.name>`")
    namespace: str | None = Field(None, description="namespace of the Lease; null: the application's")
    identity: str | None = Field(
        None,
        description="what this controller calls itself in the Lease, a random suffix is added; "
        "null: the name of its host (in a cluster, of its pod)",
    )
    duration: Count = Field(
        15, description="seconds without a renewal after which another controller may take over"
    )
    renew_deadline: Positive = Field(
        10.0, description="seconds after its last renewal at which a leader stops writing"
    )
    retry_period: Positive = Field(2.0, description="seconds between tries to take or renew the Lease")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.retry_period < self.renew_deadline < self.duration:
            raise ValueError(
                "needs retry_period < renew_deadline < duration, so that a leader stops writing before "
                f"another starts; found {self.retry_period:g}, {self.renew_deadline:g}, {self.duration}"
            )
        return self


class ClusterSection(Section):
    """Which cluster the scripts talk to."""

    kind: Literal["testbed", "kubernetes"] = Field(
        "testbed", description="testbed: the emulated cluster; kubernetes: a real one"
    )
    prometheus: Prometheus = Prometheus()
    kubeconfig: str | None = Field(
        None,
        description="file with the address and credentials of the Kubernetes API; "
        "null: KUBECONFIG, ~/.kube/config, then the pod's service account",
    )
    context: str | None = Field(
        None, description="context of the kubeconfig that is used; null: its current one"
    )
    timeout: Positive = Field(
        10.0, description="seconds after which a request to the Kubernetes API is given up"
    )
    strict_certificates: bool = Field(
        True,
        description="false: take a certificate authority of the Kubernetes API that states no key "
        "identifiers, which Python 3.13 and newer refuse; all else is checked nevertheless",
    )
    call_graph: Literal["istio", "jaeger"] = Field(
        "istio", description="where calls.csv comes from: Istio's metrics in Prometheus, or Jaeger"
    )
    jaeger: Jaeger = Jaeger()
    lease: Lease = Lease()
