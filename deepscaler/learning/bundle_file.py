"""The file of a bundle: its bytes, and what it says about itself; without torch.

A `<name>.pt` is the zip archive that `torch.save` writes, with two things more. The member
`archive/bundle.json` says everything but the tensors. The archive's comment, the last bytes of the file,
states the version of the format and the SHA-256 of all bytes before it. So `torch.load` reads the tensors of
a bundle, and a bundle of which any bit has changed is refused.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from deepscaler.artefacts import LARGEST_BUNDLE_BYTES, one_line
from deepscaler.errors import BundleError
from deepscaler.settings.advice import train_with

VERSION = 2
LARGEST_TEXT_BYTES = 16 * 1024**2
"""Of the description, and of the list of tensors."""
_DESCRIPTION = "archive/bundle.json"
_TENSORS = "data.pkl"
_SEAL = "deepscaler-bundle {version} sha256:"
_SEALED = re.compile(rb"deepscaler-bundle (\d{1,4}) sha256:([0-9a-f]{64})\Z")
_SEAL_BYTES = len(_SEAL.format(version=VERSION)) + 64
_PLAIN = re.compile(r"collections OrderedDict|torch._utils _rebuild_tensor_v2|torch [A-Z][a-z]+Storage")
"""What the list of tensors may refer to."""
_REFERRING = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
_TEXTS = ("app", "label")
_LISTS = ("services", "features")
_NUMBERS = ("step", "base_step", "window", "horizon")


def make_again(path: str | Path) -> str:
    """What to do about a bundle that can't be used, as it stands in messages."""
    return f"make a new one with: {train_with(path)}"


@dataclass(frozen=True)
class BundleFile:
    """A bundle as it was read, once: whatever is made from it is made from the same bytes.

    Attributes:
        path: where it was.
        sha256: of the whole file, as `sha256sum` prints it.
        parts: the description: `network`, `sizes`, `meta`, `settings`, `errors`, `graph`.
        content: the whole file.
    """

    path: Path
    sha256: str
    parts: Mapping[str, Any] = field(repr=False)
    content: bytes = field(repr=False)

    @property
    def description(self) -> dict[str, Any]:
        """What expectations are compared with: network, sizes, and what the data set says about itself."""
        return {"network": self.parts["network"], "sizes": self.parts["sizes"], **self.parts["meta"]}


def seal(archive: bytes, parts: Mapping[str, Any], path: Path) -> bytes:
    """The content of a bundle's file.

    Args:
        archive: what `torch.save` wrote.
        parts: the description.
        path: of the file, as it stands in messages.

    Raises:
        BundleError: the file would be too large.
    """
    text = json.dumps(parts, allow_nan=False).encode()
    buffer = io.BytesIO(archive)
    with ZipFile(buffer, "a", ZIP_STORED) as whole:
        whole.writestr(ZipInfo(_DESCRIPTION), text)
        whole.comment = b"0" * _SEAL_BYTES
    body = buffer.getvalue()[:-_SEAL_BYTES]
    if len(body) + _SEAL_BYTES > LARGEST_BUNDLE_BYTES or len(text) > LARGEST_TEXT_BYTES:
        raise BundleError(
            f"{path}: the bundle would take {len(body)} bytes, {len(text)} of them to describe it, more than "
            f"{LARGEST_BUNDLE_BYTES} and {LARGEST_TEXT_BYTES}; choose a smaller network"
        )
    return body + _SEAL.format(version=VERSION).encode() + sha256(body).hexdigest().encode()


def read_bundle_file(path: str | Path) -> BundleFile:
    """Read a bundle and check that it is whole.

    Raises:
        BundleError: it is missing, too large, of another version, changed since it was written, or says too
            little about itself.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_BUNDLE_BYTES:
            raise BundleError(f"{path}: no bundle: expected a file of at most {LARGEST_BUNDLE_BYTES} bytes")
        content = path.read_bytes()
    except FileNotFoundError as error:
        remedy = f"make it with: {train_with(path)}"
        raise BundleError(f"{path}: no such bundle; {remedy}") from error
    except OSError as error:
        raise BundleError(f"{path}: the bundle can't be read ({one_line(error)})") from error
    _check_seal(path, content)
    try:
        return BundleFile(path, sha256(content).hexdigest(), _parts(content), content)
    except (BadZipFile, KeyError, TypeError, ValueError, RecursionError, NotImplementedError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: object) -> BundleError:
    """The error of a bundle that is whole, but was made wrongly."""
    return BundleError(f"{path}: not a usable bundle ({one_line(error, 160)}); {make_again(path)}")


def _check_seal(path: Path, content: bytes) -> None:
    """Refuse a file that isn't, to the last bit, what was written.

    Raises:
        BundleError: it isn't, or it is of another version.
    """
    found = _SEALED.search(content[-_SEAL_BYTES - 3 :])
    if found is None:
        raise BundleError(
            f"{path}: no bundle with a checksum: it is broken, not a bundle, or of an older version; "
            f"{make_again(path)}"
        )
    if int(found[1]) != VERSION:
        raise BundleError(
            f"{path}: bundle of version {int(found[1])}, expected {VERSION}; {make_again(path)}"
        )
    if sha256(content[:-_SEAL_BYTES]).hexdigest().encode() != found[2]:
        raise BundleError(
            f"{path}: broken: its checksum isn't that of its content, so it changed after it was written; "
            f"copy it again, or {make_again(path)}"
        )


def _parts(content: bytes) -> dict[str, Any]:
    with ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if any(member.compress_type != ZIP_STORED for member in members):
            raise ValueError("a part of it is compressed")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("its parts are larger than the file")
        for member in members:
            if member.filename.endswith(_TENSORS):
                _check_references(_text(archive, member))
        return _checked(json.loads(_text(archive, archive.getinfo(_DESCRIPTION)), parse_constant=_no_number))


def _text(archive: ZipFile, member: ZipInfo) -> bytes:
    if member.file_size > LARGEST_TEXT_BYTES:
        raise ValueError(f"{member.filename} takes {member.file_size} bytes")
    return archive.read(member)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{_DESCRIPTION} holds {text}")


def _check_references(text: bytes) -> None:
    """Refuse a pickle that refers to anything but plain tensors, before anything of it is made.

    Raises:
        ValueError: it does.
    """
    for code, argument, _ in pickletools.genops(text):
        if code.name in _REFERRING or (code.name == "GLOBAL" and not _PLAIN.fullmatch(str(argument))):
            raise ValueError(f"it holds {argument or code.name}, which is neither a tensor nor a plain value")


def _checked(parts: Any) -> dict[str, Any]:
    """`parts`, if they are of the types that whoever uses a bundle relies on.

    Raises:
        ValueError, KeyError, TypeError: they aren't.
    """
    if not isinstance(parts, dict):
        raise ValueError(f"{_DESCRIPTION}: expected a mapping, found {type(parts).__name__}")
    for name in ("sizes", "meta", "settings", "errors", "graph"):
        _require(isinstance(parts[name], dict), name, "a mapping")
    _require(isinstance(parts["network"], str), "network", "a name")
    meta = parts["meta"]
    for name in _TEXTS:
        _require(isinstance(meta[name], str), name, "a text")
    for name in _LISTS:
        known = (
            isinstance(meta[name], list) and meta[name] and all(isinstance(one, str) for one in meta[name])
        )
        _require(bool(known) and len(set(meta[name])) == len(meta[name]), name, "names, each once")
    for name in _NUMBERS:
        number = isinstance(meta[name], int | float) and not isinstance(meta[name], bool)
        _require(number and meta[name] > 0, name, "a number above 0")
    return parts


def _require(fulfilled: bool, name: str, what: str) -> None:
    if not fulfilled:
        raise ValueError(f"{_DESCRIPTION}: {name}: expected {what}")
