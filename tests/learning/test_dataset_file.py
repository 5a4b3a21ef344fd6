"""A data set that can't be right is refused, and before it fills the memory."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from helpers.model_samples import make_dataset
from helpers.paths import ROOT

from deepscaler.errors import DataError
from deepscaler.learning.dataset import read_dataset, write_dataset

pytestmark = pytest.mark.stress
CHILD = """
import re, resource, sys
from deepscaler.errors import DataError
from deepscaler.learning.dataset import read_dataset
size = 1024 * int(re.search(r"VmSize:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20,) * 2)
try:
    read_dataset(sys.argv[1])
except DataError as error:
    print(error)
"""


def header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("kind", ["3 GiB of zeros", "a shape that isn't there"])
def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "dataset.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if kind == "3 GiB of zeros":
            with archive.open("series.npy", "w", force_zip64=True) as file:
                file.write(header((3 * 2**28,)))
                for _ in range(3 * 2**6):
                    file.write(bytes(2**24))
        else:
            archive.writestr("series.npy", header((2**40,)) + bytes(64))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "broken data set (" in done.stdout and ("in memory" in done.stdout) == kind.startswith("3")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("series", None, "series: it is missing"),
        ("series", np.zeros((2, 2), np.float32), "series: shape (2, 2), expected"),
        ("labels", np.array([["a"]]), "labels: "),
        ("times", np.zeros(3), "expected"),
        ("mean", np.float32("nan"), "mean: shape (), expected"),
        ("bounds", np.array([5, 2]), "bounds: 5, 2 of"),
        ("meta", np.frombuffer(b'{"version": 2}', np.uint8), "services: expected names"),
        ("meta", np.frombuffer(b"[" * 9000, np.uint8), "broken data set"),
        ("meta", np.frombuffer(b"5", np.uint8), "its description isn't an object"),
    ],
)
def test_arrays_that_dont_fit_together_are_refused(tmp_path, name, value, says):
    write_dataset(make_dataset(step=60.0, base_step=15.0, window=6), tmp_path)
    with np.load(tmp_path / "dataset.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays.pop(name)
    np.savez(tmp_path / "dataset.npz", **(arrays if value is None else {**arrays, name: value}))
    with pytest.raises(DataError) as error:
        read_dataset(tmp_path)
    assert says in str(error.value) and "python data_process.py" in str(error.value)
