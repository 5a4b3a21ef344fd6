"""A bundle and the one before it: a new one takes its place whole, and either way back is one step.

Beside `<name>.pt` lie `<name>.previous.pt`, the bundle before it, and at times `<name>.candidate.pt`, one
that was judged and not taken. Each has its JSON and its graph beside it.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path

from deepscaler.artefacts import ensure_writable, one_line, replacing
from deepscaler.bundle_names import ASIDE, BESIDE, CANDIDATE, PREVIOUS, lies_beside
from deepscaler.errors import BundleError, SettingsError
from deepscaler.learning.bundle import side_path
from deepscaler.learning.bundle_file import read_bundle_file

SUFFIXES = (".affinity.csv", ".json", ".pt")
"""What belongs to a bundle; the file that decides comes last."""


def check_place(path: Path) -> None:
    """Refuse, before a training, a place where its bundle can't stand with the one before it beside it.

    Raises:
        SettingsError: the name doesn't end in `.pt`, is that of a file beside a bundle, or of a directory.
        WriteError: no file can be written there.
    """
    if path.suffix != ".pt":
        raise SettingsError(f"--model_save_path {path}: a bundle's name ends in .pt; try {path}.pt")
    if lies_beside(path):
        kept = ", ".join(f"<name>.{word}.pt" for word in BESIDE)
        raise SettingsError(f"--model_save_path {path}: another name is needed; main.py itself writes {kept}")
    if path.is_dir():
        raise SettingsError(f"--model_save_path {path}: expected the name of a file, this is a directory")
    ensure_writable(path.parent)


def previous_of(path: Path) -> Path:
    """The bundle before the one at `path`."""
    return side_path(path, f".{PREVIOUS}.pt")


def candidate_of(path: Path) -> Path:
    """A bundle that may take the place of the one at `path`."""
    return side_path(path, f".{CANDIDATE}.pt")


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
        SettingsError, WriteError: no bundle can stand at `path`, see `check_place`.
        BundleError: there is no previous bundle, it is broken, or a file can't be written.
    """
    check_place(path)
    previous = previous_of(path)
    if not previous.is_file():
        raise BundleError(
            f"--rollback: {previous}: no such bundle; main.py keeps one when it writes {path.name} anew"
        )
    restored = read_bundle_file(previous).sha256
    replaced = _sha256(path) if path.is_file() else ""
    aside = side_path(path, f".{ASIDE}.pt")
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
