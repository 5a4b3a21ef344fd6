"""Which program answers Prometheus's query API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from deepscaler.adapters.authentication import authentication, certificates
from deepscaler.adapters.web import Reply, Web
from deepscaler.settings import Prometheus

UNKNOWN = "a store that doesn't say which it is"
_INFORMATION, _STORES = "/api/v1/status/buildinfo", "/api/v1/stores"


def store_kind(settings: Prometheus, session: requests.Session | None = None) -> str:
    """`Prometheus 2.42.0`, `VictoriaMetrics`, `Thanos`, what the store calls itself, or `UNKNOWN`.

    Source: only VictoriaMetrics sends the header X-Server-Hostname, only Thanos lists its stores, and Mimir
    calls itself an application.

    Raises:
        MetricsError: a file of the credentials can't be read.
    """
    web = Web(session)
    found = _get(web, settings, _INFORMATION)
    if found is None:
        return UNKNOWN
    if "x-server-hostname" in {name.lower() for name in found.headers}:
        return "VictoriaMetrics"
    stores = _get(web, settings, _STORES)
    if stores is not None and stores.status == 200 and _data(stores) is not None:
        return "Thanos"
    data = _data(found)
    version = data.get("version") if isinstance(data, Mapping) else None
    if not version or not isinstance(data, Mapping):
        return UNKNOWN
    return f"{data.get('application') or 'Prometheus'} {version}"


def _get(web: Web, settings: Prometheus, path: str) -> Reply | None:
    try:
        return web.send(
            "GET",
            settings.url.rstrip("/") + path,
            settings.timeout,
            headers={name: value.get_secret_value() for name, value in settings.headers.items()},
            auth=authentication(settings),
            verify=certificates(settings),
        )
    except (requests.RequestException, OSError):
        return None


def _data(reply: Reply) -> Any:
    """What a successful answer holds; None where it is no such answer."""
    try:
        answer = reply.json()
    except ValueError:
        return None
    return answer.get("data") if isinstance(answer, dict) and answer.get("status") == "success" else None
