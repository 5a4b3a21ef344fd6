"""The arrays of a `.npz` file within bounds, and whether those of a data set fit together."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import parse_json

MOST_BYTES = 32 * 2**30
"""No file may hold more, decompressed: a thousand services for a year of minutes have less."""
_FREE_BYTES = 2**28
_MOST_RATIO = 200
_VERSIONS = ((1, 0), (2, 0), (3, 0))
Arrays = dict[str, NDArray[Any]]


def read_arrays(path: Path) -> Arrays:
    """The arrays of a `.npz` file; what they take in memory is checked before any of it is taken.

    Raises:
        ValueError: it is no such file, is broken, or would take more memory than a sound one.
    """
    try:
        with ZipFile(path) as stored:
            sizes = [_size(stored, name) for name in stored.namelist()]
            if len(set(stored.namelist())) < len(sizes):
                raise ValueError("an array is there twice")
            total, packed = sum(sizes), path.stat().st_size
            if total > min(MOST_BYTES, max(_FREE_BYTES, _MOST_RATIO * packed)):
                raise ValueError(f"{packed} bytes would become {total} in memory, which no data set does")
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, KeyError, EOFError, BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _size(stored: ZipFile, name: str) -> int:
    """Bytes of one array, if the file has as many as its header says."""
    info = stored.getinfo(name)
    with stored.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _VERSIONS:
            raise ValueError(f"{name}: version {version} of the format")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        header = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or header + size != info.file_size:
        raise ValueError(f"{name}: its size isn't that of its shape {shape}")
    return size


def read_meta(stored: NDArray[Any]) -> dict[str, Any]:
    """The description in a data set.

    Raises:
        ValueError: it isn't a JSON object.
    """
    meta = parse_json(stored.tobytes())
    if not isinstance(meta, dict):
        raise ValueError("its description isn't an object")
    return meta


def check_dataset(
    arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], statistics: Sequence[str]
) -> None:
    """Check that the arrays of a data set and its description fit together.

    Raises:
        ValueError: they don't; says what was expected.
    """
    for name in ("times", "series", "labels", "bounds", *statistics):
        _require(name in arrays, f"{name}: it is missing")
    services, features = (_names(meta, name) for name in ("services", "features"))
    for name in ("step", "base_step"):
        _require(_is_number(meta.get(name)) and 0 < meta[name] < 1e9, f"{name}: expected seconds")
    for name in ("window", "horizon"):
        whole = isinstance(meta.get(name), int) and not isinstance(meta[name], bool)
        _require(whole and 0 < meta[name] < 1e6, f"{name}: expected a number of steps")
    _require(meta["step"] >= meta["base_step"], "step: expected no less than base_step")
    _require(isinstance(meta.get("label", ""), str), "label: expected a text")
    lead = meta.get("lead") or 0.0
    _require(_is_number(lead) and 0 <= lead < 1e9, "lead: expected seconds")
    n, f = len(services), len(features)
    length = len(arrays["times"]) if arrays["times"].ndim == 1 else -1
    shapes: dict[str, tuple[int, ...]] = {
        "series": (length, n, f),
        "mean": (n, f),
        "scale": (n, f),
        "bounds": (2,),
    }
    shapes |= dict.fromkeys(("labels", "unrounded", "present"), (length, n))
    shapes |= dict.fromkeys(("label_mean", "label_scale"), (n,))
    graphs = [name for name in arrays if name.startswith(("prior_", "evidence_"))]
    shapes |= dict.fromkeys(graphs, (n, n)) | {"times": (length,)}
    for name, shape in shapes.items():
        if name in arrays:
            found = arrays[name]
            _require(found.shape == shape, f"{name}: shape {found.shape}, expected {shape}")
            _require(found.dtype.kind in "fiu", f"{name}: expected numbers")
    for name in ("times", *statistics, *graphs):
        _require(bool(np.isfinite(arrays[name]).all()), f"{name}: expected finite numbers")
    _require(bool((np.diff(arrays["times"]) > 0).all()), "times: expected them to rise")
    _require(
        all(bool((arrays[name] > 0).all()) for name in ("scale", "label_scale")), "scale: expected it above 0"
    )
    first, second = (int(value) for value in arrays["bounds"])
    _require(0 <= first <= second <= length, f"bounds: {first}, {second} of {length} rows")


def _names(meta: Mapping[str, Any], key: str) -> list[str]:
    found = meta.get(key)
    _require(isinstance(found, list) and bool(found), f"{key}: expected names")
    assert isinstance(found, list)
    _require(all(isinstance(name, str) for name in found), f"{key}: expected names")
    _require(len(set(found)) == len(found), f"{key}: expected each name once")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
