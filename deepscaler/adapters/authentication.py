"""How requests to Prometheus prove who sends them, and how the server's certificate is checked."""

from __future__ import annotations

from pathlib import Path

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from deepscaler.artefacts import one_line
from deepscaler.errors import MetricsError
from deepscaler.settings import Prometheus


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
        return HTTPBasicAuth(settings.username, settings.password.get_secret_value())
    if settings.token is not None:
        return _Bearer(settings.token.get_secret_value())
    if settings.token_file is not None:
        try:
            return _Bearer(Path(settings.token_file).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise MetricsError(
                f"cluster.prometheus.token_file {settings.token_file}: {one_line(error)}"
            ) from error
    return _Nobody()


def certificates(settings: Prometheus) -> bool | str:
    """The file of authorities that certificates are checked with; True: the usual ones.

    Raises:
        MetricsError: there is no such file.
    """
    if settings.ca_file is not None and not Path(settings.ca_file).exists():
        raise MetricsError(f"cluster.prometheus.ca_file {settings.ca_file}: no such file")
    return settings.ca_file or True
