"""The file of a bundle: whole to the last bit, bounded, finite, and of tensors and plain values only."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from helpers.bundles import write_bundle

from deepscaler.errors import BundleError
from deepscaler.learning import bundle_file
from deepscaler.learning.bundle import load_bundle, save_bundle
from deepscaler.learning.bundle_file import read_bundle_file, seal
from model.network import Shape
from model.networks import NETWORKS, build_network

pytestmark = pytest.mark.stress
FLIPS = 400


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "toy.pt").read_bytes()


def parts_of(content: bytes) -> dict[str, Any]:
    with ZipFile(io.BytesIO(content)) as archive:
        return dict(json.loads(archive.read("archive/bundle.json")))


def tensors_of(content: bytes) -> dict[str, Any]:
    return dict(torch.load(io.BytesIO(content), weights_only=True))


def saved(tensors: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as error:
        load_bundle(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_every_bit_counts(whole: bytes, tmp_path: Path) -> None:
    """Flips anywhere, and every one of the checksum's own bytes."""
    draw, path = random.Random(2000), tmp_path / "toy.pt"
    places = [draw.randrange(8 * len(whole)) for _ in range(FLIPS)]
    places += [8 * (len(whole) - 1 - byte) + draw.randrange(8) for byte in range(100)]
    for place in places:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"python main\.py --model_save_path"):
            load_bundle(path)
    path.write_bytes(whole)
    assert load_bundle(path).services == ("web", "api", "db")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: b"", "no bundle with a checksum"),
        (lambda whole: b"not a bundle", "no bundle with a checksum"),
        (lambda whole: whole[: len(whole) // 2], "no bundle with a checksum"),
        (lambda whole: whole[:-1], "no bundle with a checksum"),
        (lambda whole: whole + b"\n", "no bundle with a checksum"),
        (lambda whole: whole[1:], "its checksum isn't that of its content"),
        (lambda whole: whole[:1000] + whole[1001:], "its checksum isn't that of its content"),
    ],
)
def test_what_was_cut_or_grew_is_refused(
    change: Callable[[bytes], bytes], message: str, whole: bytes, tmp_path: Path
) -> None:
    refused(tmp_path / "toy.pt", change(whole), message)


def test_an_older_or_newer_version_is_refused_with_the_command_that_makes_a_new_one(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "toy.pt"
    again = rf"make a new one with: python main\.py --model_save_path {path}"
    first = saved({"version": 1, "meta": {"app": "shop"}, "affinity": torch.zeros(3, 3)})
    refused(path, first, f"of an older version; {again}")
    refused(
        path, whole.replace(b"deepscaler-bundle 2", b"deepscaler-bundle 1"), f"version 1, expected 2; {again}"
    )
    newer = whole.replace(b"deepscaler-bundle 2", b"deepscaler-bundle 12")
    refused(path, newer, f"version 12, expected 2; {again}")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("group", ["weights", "graphs", "statistics"])
def test_numbers_that_arent_finite_are_neither_read_nor_written(
    number: float, group: str, whole: bytes, tmp_path: Path
) -> None:
    tensors = tensors_of(whole)
    name = next(iter(tensors[group]))
    tensors[group][name].view(-1)[0] = number
    path = tmp_path / "toy.pt"
    refused(path, seal(saved(tensors), parts_of(whole), path), f"{group}: {name} holds NaN or infinity")
    path.write_bytes(whole)
    bundle = load_bundle(path)
    held = {"weights": bundle.weights.values(), "graphs": [bundle.affinity]}.get(group)
    (next(iter(held)).view(-1) if held else bundle.normalizer.mean.reshape(-1))[0] = number
    advice = "train with a smaller learning rate" if held else "look at the data"
    with pytest.raises(BundleError, match=rf"not written: {group}: .* holds NaN or infinity; {advice}"):
        save_bundle(bundle, path)
    assert path.read_bytes() == whole


class Evil:
    """Something that isn't plain."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize(
    "thing",
    [
        Evil(print, "run"),
        Evil(bytearray, 10),
        {1, 2},
        torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        3,
        [torch.zeros(1)],
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_anything_but_plain_tensors_is_refused(
    thing: object, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, tensors = tmp_path / "toy.pt", tensors_of(whole)
    for stored in ({**tensors, "weights": {"w": thing}}, {**tensors, "more": thing}, thing):
        refused(path, seal(saved(stored), parts_of(whole), path), "not a usable bundle|expected a mapping")
    assert capsys.readouterr().out == ""


def test_a_file_that_grows_when_it_is_unpacked_is_refused_before_it_is(whole: bytes, tmp_path: Path) -> None:
    path, buffer = tmp_path / "toy.pt", io.BytesIO()
    with ZipFile(io.BytesIO(whole)) as source, ZipFile(buffer, "w", ZIP_DEFLATED) as bomb:
        for member in source.infolist():
            if member.filename != "archive/bundle.json":
                bomb.writestr(member.filename, source.read(member))
        bomb.writestr("archive/data/99", bytes(300_000_000))
    content = seal(buffer.getvalue(), parts_of(whole), path)
    assert len(content) < 1_000_000
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(BundleError, match="a part of it is compressed"):
        load_bundle(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    tensors = tensors_of(whole)
    tensors["weights"]["huge"] = torch.zeros(1).expand(10**10)
    refused(path, seal(saved(tensors), parts_of(whole), path), "its tensors take 4000")


def test_sizes_are_bounded(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parts = tmp_path / "toy.pt", parts_of(whole)
    huge = {**parts, "sizes": {**parts["sizes"], "time_channels": 10**6}}  # 12 TB of weights
    refused(path, seal(saved(tensors_of(whole)), huge, path), "isn't there in the shape")
    monkeypatch.setattr(bundle_file, "LARGEST_BUNDLE_BYTES", len(whole) - 1)
    refused(path, whole, f"a file of at most {len(whole) - 1} bytes")
    with pytest.raises(BundleError, match=f"would take {len(whole) - 91} bytes"):
        seal(saved(tensors_of(whole)), parts, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("services", []),
        ("services", ["web", "web", "db"]),
        ("services", ["web", "api"]),
        ("services", "web"),
        ("features", ["pod", 3]),
        ("window", 0),
        ("step", "60"),
        ("horizon", True),
        ("app", None),
    ],
)
def test_what_it_says_of_itself_has_to_be_of_the_right_kind(
    name: str, value: object, whole: bytes, tmp_path: Path
) -> None:
    path, parts = tmp_path / "toy.pt", parts_of(whole)
    parts["meta"][name] = value
    refused(path, seal(saved(tensors_of(whole)), parts, path), "not a usable bundle")
    del parts["meta"]
    refused(path, seal(saved(tensors_of(whole)), parts, path), "not a usable bundle")


def test_the_hash_is_that_of_the_file(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "toy.pt").write_bytes(whole)
    file = read_bundle_file(tmp_path / "toy.pt")
    assert file.sha256 == sha256(whole).hexdigest()
    (tmp_path / "toy.pt").unlink()
    assert load_bundle(file).services == ("web", "api", "db")  # from the bytes that were read


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_measured_without_memory(name: str) -> None:
    from deepscaler.learning.hyperparameters import network_sizes
    from deepscaler.settings import ModelConfig

    shape, sizes = Shape(4, 3, 12, 2), network_sizes(ModelConfig(), name)
    with torch.device("meta"):
        empty = build_network(name, shape, sizes)
    real = build_network(name, shape, sizes).state_dict()
    assert {key: value.shape for key, value in empty.state_dict().items()} == {
        key: value.shape for key, value in real.items()
    }
