"""The recipe "A network" of CONTRIBUTING.md, followed in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.model_samples import make_dataset
from helpers.paths import ROOT

from deepscaler.learning.dataset import write_dataset

COPIED = (
    "main.py",
    "pyproject.toml",
    "config",
    "deepscaler",
    "model",
    "tests/conftest.py",
    "tests/learning/test_hyperparameters.py",
    "tests/settings/test_describe.py",
)
TRY = """
import sys
import pytest
from deepscaler.settings.__main__ import main as settings
assert settings(["--schema"]) == 0 and settings(["--docs"]) == 0
import main
files = ["--model_config_path", "model.yaml", "--train_config_path", "train.yaml"]
assert main.main([*files, "--model_name", "GRU", "--model_save_path", "gru.pt"]) == 0
import model.bench
from deepscaler.learning.bench import main as bench
model.bench.PRODUCT = 128
assert bench(["--networks", "GRU", "--seconds", "0", "--sizes", "3,5,2,8", "--json"]) == 0
tests = ["tests/learning/test_hyperparameters.py", "tests/settings/test_describe.py"]
sys.exit(pytest.main(["-p", "no:cacheprovider", *tests]))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources and what the recipe touches, with a small data set to train on."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    write_dataset(make_dataset(length=200), tmp_path / "data")
    dataset = {"data_dir": "data", "device": "cpu", "threads": 1}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"dataset": dataset, "GRU": {"channels": 8}}))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"num_epoch": 1, "num_iter": 1, "random_graphs": 1}))
    return tmp_path


def recipe() -> tuple[str, dict[str, str], list[str]]:
    """Text of the recipe, its blocks of code by file, and the lines that it tells to add."""
    whole = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = whole[whole.index("**A network.**") : whole.index("**A policy.**")]
    blocks = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL))
    return text, blocks, re.findall(r"the line `(.+?)`", text)


def insert(path: Path, before: str, text: str) -> None:
    """Put `text` in front of the only place where `before` stands."""
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1, (path, before)
    path.write_text(source.replace(before, text + before), encoding="utf-8")


def test_a_gru_is_added_trained_and_measured_as_the_recipe_says(copy: Path) -> None:
    text, blocks, (registered, configured) = recipe()
    module, settings = "model/gru.py", "deepscaler/settings/training.py"
    assert set(blocks) == {module, settings}
    assert all(name in text for name in ("model/networks.py", "`NETWORKS`", "`ModelConfig`", "`make schema`"))
    (copy / module).write_text(blocks[module], encoding="utf-8")
    insert(copy / "model/networks.py", "NETWORKS: dict", "from model.gru import GRU\n\n")
    insert(copy / "model/networks.py", '    "DCRNN": DCRNN,\n', f"    {registered}\n")
    insert(copy / settings, "class ModelConfig(", blocks[settings] + "\n\n")
    insert(copy / settings, "    DCRNN: DiffusionSizes", f"    {configured}\n")

    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    described = json.loads((copy / "gru.json").read_text())
    assert (described["network"], described["sizes"]) == ("GRU", {"channels": 8})
    assert "GRUSizes" in json.loads((copy / "config/model.schema.json").read_text())["$defs"]
    assert '"network": "GRU"' in done.stdout
