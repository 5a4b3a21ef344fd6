"""Fetching a bundle over HTTP: the right one whole, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deepscaler.adapters import fetch_bundle

CONTENT = bytes(range(256)) * 5000
HASH = sha256(CONTENT).hexdigest()


class Files(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path != "/absent.pt"
        self.send_response(200 if found else 404)
        short = self.path == "/short.pt"  # the connection ends before the file does
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        self.wfile.write(CONTENT[: 1000 if short else None] if found else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def fetch(url: str, digest: str, path: Path) -> int:
    return fetch_bundle.main([f"--url={url}", f"--sha256={digest}", f"--to={path}"])


def test_the_right_bundle_is_written_and_not_fetched_again(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bundle.pt"
    assert fetch(f"{server}/a.pt", HASH.upper(), path) == 0
    assert path.read_bytes() == CONTENT and f"{len(CONTENT)} bytes" in capsys.readouterr().out
    assert fetch("http://127.0.0.1:9/gone.pt", HASH, path) == 0


@pytest.mark.parametrize(
    ("user", "query", "secret"),
    [
        ("bob:hunter2secret@", "", "hunter2secret"),
        ("", "?X-Amz-Credential=who&X-Amz-Signature=0123456789abcdef", "0123456789abcdef"),
        ("", "?sp=r&sig=abc123def456", "abc123def456"),
    ],
)
def test_a_secret_of_the_address_is_printed_nowhere(user, query, secret, server, tmp_path, capsys) -> None:
    address = f"{server.replace('//', f'//{user}')}/a.pt{query}"
    assert fetch(address, HASH, tmp_path / "bundle.pt") == 0  # fetched
    assert fetch(address, HASH, tmp_path / "bundle.pt") == 0  # there already
    assert fetch(address, "0" * 64, tmp_path / "other.pt") == 1
    said = capsys.readouterr()
    assert said.out.count("/a.pt") == 2 and "/a.pt" in said.err
    assert secret not in said.out + said.err


@pytest.mark.parametrize(
    ("name", "digest", "message"),
    [
        ("a.pt", "0" * 64, f"SHA-256 {HASH}, expected {'0' * 64}"),
        ("a.pt", "abc", "expected 64 hexadecimal digits"),
        ("absent.pt", HASH, "404 Client Error"),
        ("short.pt", HASH, "no bundle from there"),
    ],
)
def test_anything_else_leaves_the_old_file_and_says_why(
    name: str, digest: str, message: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bundle.pt"
    path.write_bytes(b"old")
    assert fetch(f"{server}/{name}", digest, path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert path.read_bytes() == b"old" and [item.name for item in tmp_path.iterdir()] == ["bundle.pt"]


def test_what_is_too_large_for_a_bundle_is_given_up(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_bundle, "LARGEST_BUNDLE_BYTES", 1000)
    assert fetch(f"{server}/a.pt", HASH, tmp_path / "bundle.pt") == 1
    assert "more than 1000 bytes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert fetch(f"{server}/a.pt", HASH, Path("/proc/nowhere/bundle.pt")) == 1
    assert "can't be written" in capsys.readouterr().err
