"""How requests to Prometheus prove who sends them, and how the server's certificate is checked."""

from __future__ import annotations

from pathlib import Path

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from deepscaler.artefacts import one_line
from deepscaler.errors import MetricsError
from deepscaler.scrubbing import hide
from deepscaler.settings import Prometheus

_MOST_CHARACTERS = 2**16


class _Bearer(AuthBase):
    """A token in a header that is set here, so that a .netrc file can't replace it."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _Nobody(AuthBase):
    """No authentication at all, not even that of a .netrc file."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def authentication(settings: Prometheus) -> AuthBase:
    """User and password, a token, or a token from its file, which is read anew because tokens are rotated.

    Raises:
        MetricsError: the file of the token can't be read.
    """
    if settings.username is not None and settings.password is not None:
        password = settings.password.get_secret_value()
        hide(f"{settings.username}:{password}")
        return HTTPBasicAuth(settings.username, password)
    if settings.token is not None:
        return _Bearer(settings.token.get_secret_value())
    if settings.token_file is not None:
        return _Bearer(_token_of(settings.token_file))
    return _Nobody()


def _token_of(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            token = file.read(_MOST_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MetricsError(f"cluster.prometheus.token_file {path}: {one_line(error)}") from error
    hide(token)
    if not token or not token.isascii() or not token.isprintable():
        raise MetricsError(f"cluster.prometheus.token_file {path}: expected one line with the token")
    return token


def certificates(settings: Prometheus) -> bool | str:
    """The file of authorities that certificates are checked with; True: the usual ones.

    Raises:
        MetricsError: there is no such file.
    """
    if settings.ca_file is not None and not Path(settings.ca_file).exists():
        raise MetricsError(f"cluster.prometheus.ca_file {settings.ca_file}: no such file")
    return settings.ca_file or True
