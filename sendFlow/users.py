"""What the users of every application share: requests by endpoint, redirects followed one by one. Needs locust."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

from locust import User

from sendFlow.routes import endpoint_of, url_of

GATEWAY = "http://localhost:30001"
"""The README's gateway; `--host` names another."""
MAX_REDIRECTS = 5


class Visitor(User):
    """Asks an application by endpoint; combined with a Locust user whose `client` may be fast or plain.

    Locust counts a followed redirect as part of the request that caused it. Here each hop is a request under
    its own endpoint's name, as the gateway and Istio count it.
    """

    abstract = True
    application: str

    def ask(
        self,
        endpoint: str,
        *,
        form: dict[str, Any] | None = None,
        segments: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """The last answer to a request for an endpoint of `testbed/apps`.

        Args:
            endpoint: such as `POST /cart`.
            form: sent URL-encoded.
            segments: values of the words in the URL's pattern.
            options: passed on to the client (`json`, `headers`).
        """
        method, path = url_of(self.application, endpoint, **(segments or {}))
        if form is not None:
            options = {
                "data": urlencode(form),
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
                **options,
            }
        answer = self.client.request(method, path, name=path_of(endpoint), allow_redirects=False, **options)
        for _ in range(MAX_REDIRECTS):
            if answer.status_code not in {301, 302, 303} or not answer.headers.get("Location"):
                break
            target = urlsplit(answer.headers["Location"])
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            following = endpoint_of(self.application, "GET", path)
            answer = self.client.request(
                "GET", path, name=path_of(following) if following else target.path, allow_redirects=False
            )
        return answer


def path_of(endpoint: str) -> str:
    """Locust's request name: the endpoint without its method, which Locust keeps in a column of its own."""
    return endpoint.partition(" ")[2]
