"""A bundle and the one before it: a new one takes its place whole, and either way back is one step.

Beside `<name>.pt` lie `<name>.previous.pt`, the bundle before it, and at times `<name>.candidate.pt`, one
that was judged and not taken. Each has its JSON and its graph beside it.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path

from deepscaler.artefacts import one_line, replacing
from deepscaler.errors import BundleError
from deepscaler.learning.bundle import side_path
from deepscaler.learning.bundle_file import read_bundle_file

SUFFIXES = (".affinity.csv", ".json", ".pt")
"""What belongs to a bundle; the file that decides comes last."""


def previous_of(path: Path) -> Path:
    """The bundle before the one at `path`."""
    return side_path(path, ".previous.pt")


def candidate_of(path: Path) -> Path:
    """A bundle that may take the place of the one at `path`."""
    return side_path(path, ".candidate.pt")


def promote(path: Path) -> None:
    """Put the candidate in the place of the bundle at `path`, which becomes the previous one.

    `path` is never without a whole bundle. The same bundle once more leaves the previous one as it is.

    Raises:
        BundleError: a file can't be written.
    """
    candidate = candidate_of(path)
    try:
        if path.is_file() and _sha256(path) != _sha256(candidate):
            for suffix in SUFFIXES:
                _copy(side_path(path, suffix), side_path(previous_of(path), suffix))
        for suffix in SUFFIXES:
            os.replace(side_path(candidate, suffix), side_path(path, suffix))
    except OSError as error:
        raise BundleError(f"{path}: the new bundle can't take its place ({one_line(error)})") from error


def roll_back(path: Path) -> tuple[str, str]:
    """Exchange the bundle at `path` and the previous one; returns the hashes of the new one and the old one.

    Done twice, it changes nothing. `path` is never without a whole bundle.

    Raises:
        BundleError: there is no previous bundle, it is broken, or a file can't be written.
    """
    previous = previous_of(path)
    if not previous.is_file():
        raise BundleError(
            f"--rollback: {previous}: no such bundle; main.py keeps one when it writes {path.name} anew"
        )
    restored = read_bundle_file(previous).sha256
    replaced = _sha256(path) if path.is_file() else ""
    aside = side_path(path, ".rollback.pt")
    try:
        for suffix in SUFFIXES:
            here, before, kept = (side_path(each, suffix) for each in (path, previous, aside))
            _copy(here, kept)
            _copy(before, here)
            if kept.is_file():
                os.replace(kept, before)
    except OSError as error:
        raise BundleError(f"{path}: can't be rolled back ({one_line(error)})") from error
    return restored, replaced


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
