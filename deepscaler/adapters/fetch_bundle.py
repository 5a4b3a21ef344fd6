"""Fetch a bundle from a URL and check that it is the one that was meant: what an init container runs.

python -m deepscaler.adapters.fetch_bundle --url https://… --sha256 … --to bundle.pt
"""

from __future__ import annotations

import argparse
import re
import sys
from hashlib import sha256
from pathlib import Path

import requests

from deepscaler.artefacts import LARGEST_BUNDLE_BYTES, one_line, replacing
from deepscaler.errors import BundleError, DeepScalerError
from deepscaler.scrubbing import scrubbed

TIME_OUT_SECONDS = 30.0
"""So long a server may stay silent."""
CHUNK_BYTES = 1 << 20


def build_parser() -> argparse.ArgumentParser:
    """Its three flags."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--url", required=True, help="where the bundle is")
    parser.add_argument("--sha256", required=True, help="of the file, as sha256sum prints it")
    parser.add_argument("--to", required=True, type=Path, help="the file to write")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Fetch, check, write, and print one line."""
    arguments = build_parser().parse_args(argv)
    try:
        size = fetch(arguments.url, arguments.sha256.strip().lower(), arguments.to)
    except DeepScalerError as error:
        print(f"fetch_bundle: {error}", file=sys.stderr)
        return 1
    print(scrubbed(f"{arguments.to}: {size} bytes from {arguments.url}"))
    return 0


def fetch(url: str, expected: str, path: Path) -> int:
    """Write what is at `url` to `path`, whole or not at all; returns its size in bytes.

    A file that has the expected hash already is left as it is.

    Args:
        url: http or https.
        expected: SHA-256 in lower case.
        path: of the file.

    Raises:
        BundleError: it can't be had or written, is too large, or has another hash.
    """
    if not re.fullmatch("[0-9a-f]{64}", expected):
        raise BundleError(f"--sha256 {expected}: expected 64 hexadecimal digits, as sha256sum prints them")
    if path.is_file() and sha256(path.read_bytes()).hexdigest() == expected:
        return path.stat().st_size
    try:
        with replacing(path) as temporary:
            return _download(url, expected, temporary)
    except requests.RequestException as error:
        raise BundleError(f"{url}: no bundle from there ({one_line(error)}); check --url") from error
    except OSError as error:
        raise BundleError(f"{path}: can't be written ({one_line(error)})") from error


def _download(url: str, expected: str, path: Path) -> int:
    digest, size = sha256(), 0
    with requests.get(url, stream=True, timeout=TIME_OUT_SECONDS) as answer, path.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(CHUNK_BYTES):
            size += len(chunk)
            if size > LARGEST_BUNDLE_BYTES:
                raise BundleError(f"{url}: more than {LARGEST_BUNDLE_BYTES} bytes, so this is no bundle")
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected:
        raise BundleError(
            f"{url}: SHA-256 {digest.hexdigest()}, expected {expected}; set URL and hash of one bundle"
        )
    return size


if __name__ == "__main__":
    raise SystemExit(main())
