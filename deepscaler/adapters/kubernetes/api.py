"""A thin client of the Kubernetes API: JSON in, JSON out.

Configuration, TLS and credentials are the official client's. Its generated models aren't used: they validate
every object that comes in, and a field that one of them doesn't expect would make a tick fail.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import nullcontext
from functools import partial
from typing import Any

from deepscaler.adapters.deadline import Deadline, seconds_left, sharing
from deepscaler.adapters.kubernetes.listed import Lists
from deepscaler.adapters.web import CHUNK_BYTES, USER_AGENT, TooLarge, bounded
from deepscaler.artefacts import one_line, parse_json
from deepscaler.errors import ClusterError
from deepscaler.scrubbing import hide
from deepscaler.settings import ClusterSection
from deepscaler.upstream import Upstream

_PAGE = 500
_MOST_PAGES = 1000
_GONE = 410
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
Object = Mapping[str, Any]
"""A Kubernetes object as JSON has it."""
_ADVICE = {
    401: "the credentials are missing, wrong or expired: renew those of the kubeconfig "
    "(cluster.kubeconfig, cluster.context)",
    403: "bind a Role with this right to the user or service account",
}


class ApiError(ClusterError):
    """A request that was refused or failed.

    Attributes:
        status: of the HTTP answer; 0 where there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class KubeApi:
    """Sends requests to one API server; connects at the first of them.

    Args:
        section: kubeconfig, context, time-out.
        retries: how often a request that couldn't connect, or a read that broke, is tried again.

    Attributes:
        upstream: counts the requests.
    """

    def __init__(self, section: ClusterSection, retries: int = 1) -> None:
        self._section, self._retries = section, retries
        self.upstream = Upstream()
        self._client: Any = None
        self._credentials = _Credentials(section)
        self._deadline = Deadline()
        self._lists = Lists()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The object or list at `path`.

        Raises:
            ApiError: there is no way to a server, no answer, a refusal (`status` says which), or no JSON.
        """
        return self.send("GET", path, query=query)

    def find(self, path: str) -> dict[str, Any] | None:
        """The object at `path`; None where there is no such object or API.

        Raises:
            ApiError: as `get`.
        """
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str) -> list[Object]:
        """All objects of a list, read page by page; those that it had before are the same ones (`Lists`).

        Where a page has expired meanwhile, the reading starts again.

        Raises:
            ApiError: as `get`, or the answer is no list of objects.
        """
        for _ in range(3):
            try:
                return self._pages(path)
            except ApiError as error:
                if error.status != _GONE:
                    raise
        raise ApiError(
            f"{path}: the list expired between its pages three times; the API server is overloaded", _GONE
        )

    def _pages(self, path: str) -> list[Object]:
        found: list[Object] = []
        query: dict[str, Any] = {"limit": _PAGE}
        for number in range(_MOST_PAGES):
            page = self.send("GET", path, query=query, read=partial(self._lists.page, path, number))
            items, meta = page.get("items") or [], page.get("metadata") or {}
            following = meta.get("continue") if isinstance(meta, dict) else 0
            if not isinstance(items, list) or not isinstance(following, str | None):
                raise ApiError(
                    f"{path}: not a list of Kubernetes objects; what stands before the API server?"
                )
            strange = [item for item in items if not isinstance(item, dict)]
            if strange:
                raise ApiError(f"{path}: the list holds {one_line(repr(strange[0]), 60)}, which is no object")
            found += items
            if not following:
                self._lists.ended(path, number + 1)
                return found
            query["continue"] = following
        raise ApiError(f"{path}: the list has no end: more than {_MOST_PAGES} pages of {_PAGE} objects")

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        time_out: float | None = None,
        read: Callable[[bytes], Any] = parse_json,
    ) -> dict[str, Any]:
        """The answer to one request; a PATCH is a merge patch.

        After a 401 the kubeconfig is read again and the request is sent once more: the token may have been
        renewed.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: of the object or list.
            body: JSON to send; None: nothing.
            query: parameters of the URL.
            time_out: seconds for all of it, credentials and second request included; nothing is sent after
                them. None: each part may take the configured time-out.
            read: what reads the answer's JSON.

        Raises:
            ApiError: as `get`.
        """
        with nullcontext() if time_out is None else sharing(time_out):
            try:
                return _parsed(*self._once(method, path, body, query), read)
            except ApiError as error:
                if error.status != 401:
                    raise
            self._client = None  # reads the kubeconfig again
            return _parsed(*self._once(method, path, body, query), read)

    def _once(
        self, method: str, path: str, body: Any, query: Mapping[str, Any] | None
    ) -> tuple[str, int, bytes]:
        """What answered, with which status, and the body."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        _check_path(path)
        client = self._connected()
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = (
                "application/merge-patch+json" if method == "PATCH" else "application/json"
            )
        where = f"{client.configuration.host}{path}"
        limit = min(self._section.timeout, seconds_left())
        if limit <= 0:
            raise ApiError(f"{where}: nothing was sent: the time for it is over")
        # A connection that is made after the request was given up would still carry it.
        time_outs = limit / (1 + self._retries), limit
        try:
            request = client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            with self.upstream.timed():
                answer, text = self._deadline.within(limit, partial(_exchange, client, request, time_outs))
        except TooLarge as error:
            raise ApiError(f"{where}: {error}; what stands before the API server?") from error
        except (ApiException, HTTPError, OSError, ValueError) as error:
            said = one_line(error.reason if isinstance(error, ApiException) else error)
            raise ApiError(f"{where}: no answer ({said}); {_way_to_it(said)}") from error
        if answer.status != 404:  # an API or object that isn't there is an answer: KEDA, the metrics server
            self.upstream.answered(answer.status)
        if not 200 <= answer.status <= 299:
            raise ApiError(_refusal(where, answer.status, answer.reason, text), answer.status)
        return where, answer.status, text

    def _connected(self) -> Any:
        if self._client is None:
            from kubernetes import client
            from urllib3.util import Retry

            configuration = self._credentials.read(self._section.timeout)
            # Only what can't have reached the server, or changes nothing there, is sent again.
            configuration.retries = Retry(
                total=self._retries,
                status=0,
                redirect=0,
                other=0,
                allowed_methods={"GET"},
                respect_retry_after_header=False,
            )
            self._client = client.ApiClient(configuration)
            if configuration.verify_ssl and not self._section.strict_certificates:
                kept = self._client.rest_client.pool_manager.connection_pool_kw
                kept["ssl_context"] = _lenient_context()
            self._client.user_agent = USER_AGENT
        return self._client


def _parsed(where: str, status: int, text: bytes, read: Callable[[bytes], Any]) -> dict[str, Any]:
    """The object that an answer states."""
    try:
        found = read(text)
    except ValueError as error:
        raise ApiError(
            f"{where}: the answer is not JSON; is this a Kubernetes API server?", status
        ) from error
    if not isinstance(found, dict):
        raise ApiError(f"{where}: not a Kubernetes object; is this a Kubernetes API server?", status)
    return found


def _way_to_it(said: str) -> str:
    """What to do about a server that can't be reached."""
    if "Key Identifier" in said:
        return (
            "Python 3.13 and newer refuse a certificate authority without key identifiers: make one with "
            "them, or set cluster.strict_certificates to false"
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "check certificate-authority and the server's name in the kubeconfig (cluster.kubeconfig)"
    return "is the API server there? Check cluster.kubeconfig"


def _lenient_context() -> ssl.SSLContext:
    """Checks certificates as Python did before 3.13: their authority may state no key identifiers."""
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class _Credentials:
    """Reads the kubeconfig in a thread of its own: the credential plugin that it may name can hang."""

    def __init__(self, section: ClusterSection) -> None:
        self._section = section
        self._reading: Future[Any] | None = None  # goes on from call to call, so that plugins don't pile up

    def read(self, seconds: float) -> Any:
        """The client's configuration.

        Raises:
            ApiError: there is no way to a server, or it isn't known within so many seconds.
        """
        from kubernetes.config import ConfigException

        if self._reading is None:
            self._reading = Future()
            threading.Thread(
                target=self._work, args=(self._reading,), name="credentials", daemon=True
            ).start()
        seconds = min(seconds, seconds_left())
        reading, overdue = self._reading, not wait([self._reading], seconds).done
        if overdue:
            raise ApiError(
                f"no way to the Kubernetes API: the credentials weren't there within {seconds:.3g} s; "
                "does the credential plugin of the kubeconfig (users[].user.exec) hang?"
            )
        self._reading = None
        try:
            return reading.result()
        except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
            raise ApiError(
                f"no way to the Kubernetes API: {one_line(error)}; set cluster.kubeconfig"
            ) from error

    def _work(self, reading: Future[Any]) -> None:
        try:
            reading.set_result(_configuration(self._section))
        except BaseException as error:
            reading.set_exception(error)


def _exchange(client: Any, request: Any, time_outs: tuple[float, float]) -> tuple[Any, bytes]:
    """The answer to one request, and its body; a connection and each part of the answer take no longer."""
    answer = client.call_api(*request, _request_timeout=time_outs)
    with answer.response as raw:
        return answer, bounded(
            raw.stream(CHUNK_BYTES, decode_content=True), raw.headers.get("Content-Length")
        )


def _configuration(section: ClusterSection) -> Any:
    """As the kubeconfig says; without one, as the service account of the pod says."""
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    configuration = client.Configuration()
    try:
        config.load_kube_config(section.kubeconfig, section.context, client_configuration=configuration)
    except ConfigException:
        if section.kubeconfig or section.context:
            raise
        config.load_incluster_config(client_configuration=configuration)
    else:
        # A token that runs out is renewed here after a 401; the client's own renewal could hang in a request.
        configuration.refresh_api_key_hook = None
    for secret in (*configuration.api_key.values(), configuration.password or ""):
        hide(str(secret).removeprefix("Bearer "))
    return configuration


def _check_path(path: str) -> None:
    """Refuse a path that a hostile name would lead elsewhere: into another namespace or to a subresource.

    Raises:
        ApiError: a part of it is no name of a Kubernetes object.
    """
    for part in path.removeprefix("/").split("/"):
        if not _SEGMENT.fullmatch(part) or part in (".", ".."):
            raise ApiError(
                f"nothing was asked of the Kubernetes API: {part!r} in the path {path!r} is no name of a "
                "Kubernetes object; check app.namespace, app.services and cluster.lease"
            )


def _refusal(where: str, status: int, reason: str | None, text: bytes) -> str:
    """An error message such as `host/path: HTTP 403 Forbidden: what the server says; what to do`."""
    try:
        answer = parse_json(text)
        said = f" {answer['reason']}: {one_line(answer['message'])}"
    except (ValueError, KeyError, TypeError):
        said = f" {reason}" if reason else ""
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    return f"{where}: HTTP {status}{said}{advice}"
