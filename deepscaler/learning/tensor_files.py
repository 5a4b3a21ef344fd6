"""Tensors in files: read without running code, and refused where they aren't plain, bounded and finite."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from deepscaler.artefacts import one_line
from deepscaler.errors import BundleError
from deepscaler.learning.bundle_file import make_again


def load_tensors(path: str | Path, absent: str) -> dict[str, Any]:
    """A mapping that `torch.save` wrote, tensors and plain values only.

    Raises:
        BundleError: `absent` where there is no file; broken, or something else than a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(absent)
    return unpack(path, path)


def unpack(path: Path, source: Path | io.BytesIO) -> dict[str, Any]:
    """The mapping that `torch.save` wrote into `source`; messages call it `path`.

    Raises:
        BundleError: broken, or something else than a mapping.
    """
    try:
        stored = torch.load(source, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        BadZipFile,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
    ) as error:
        raise BundleError(f"{path}: broken ({one_line(error, 160)}); {make_again(path)}") from error
    if not isinstance(stored, dict):
        raise BundleError(f"{path}: expected a mapping, found {type(stored).__name__}; {make_again(path)}")
    return stored


def check_plain(stored: Mapping[str, Any], most: int) -> None:
    """Refuse anything but groups of dense tensors that take at most `most` bytes together.

    Raises:
        ValueError: there is something else, or it takes more.
    """
    taken = 0
    for group, tensors in stored.items():
        if not isinstance(tensors, dict):
            raise ValueError(f"{group}: expected tensors by name, found {type(tensors).__name__}")
        for name, tensor in tensors.items():
            if type(tensor) is not Tensor or tensor.layout != torch.strided or not isinstance(name, str):
                raise ValueError(f"{group}: {name} is no plain tensor")
            taken += tensor.numel() * tensor.element_size()
    if taken > most:
        raise ValueError(f"its tensors take {taken} bytes, the file {most}")


def check_finite(stored: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: there is one; the message names the tensor.
    """
    for group, tensors in stored.items():
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{group}: {name} holds NaN or infinity")
