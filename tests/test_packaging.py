"""`pip install .` gives the six commands; `make` says which Python it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from helpers.paths import CONFIG, ROOT

import deepscaler

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = PROJECT["tool"]["setuptools"]["py-modules"]
PACKAGES = ("deepscaler", "model", "testbed", "sendFlow")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as if no `make test` were above it."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**around, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy without a network: a build leaves files in the tree that it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", *(f"{m}.py" for m in MODULES)):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index")
    done = run(*pip, "--wheel-dir", out, source, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the installed wheel and nothing of the repository."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    done = run(*pip, "--target", target, wheel, cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_the_wheel_holds_every_module_and_every_data_file(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {f"{module}.py" for module in MODULES}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                here.add(str(path.relative_to(ROOT)))
    assert names == here


def test_version_and_dependencies_are_said_once(wheel: Path) -> None:
    [place] = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(zipfile.ZipFile(wheel).read(place).decode())
    assert metadata["Version"] == deepscaler.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_all("Requires-Dist") == (ROOT / "requirements.txt").read_text().split()
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {deepscaler.__version__}\n" in citation
    assert f"\n## [{deepscaler.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", PROJECT["project"]["scripts"])
def test_every_command_is_one_of_the_scripts(command: str, installed: Path) -> None:
    module, function = PROJECT["project"]["scripts"][command].split(":")
    assert module in MODULES and function == "main"
    if command == "deepscaler-evaluate":  # one stands for all: the installer makes them alike
        done = run(installed / "bin" / command, "--help", cwd=installed, PYTHONPATH=str(installed))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: deepscaler-evaluate")


def hand_over_compiled_engine(installed: Path) -> None:
    """Spare Numba a minute or two: it uses its files if kernel.py beside them has the same size and time."""
    engine = Path("testbed") / "engine"
    if (ROOT / engine / "__pycache__").is_dir():
        shutil.copytree(ROOT / engine / "__pycache__", installed / engine / "__pycache__", dirs_exist_ok=True)
    shutil.copystat(ROOT / engine / "kernel.py", installed / engine / "kernel.py")


def test_an_installed_command_scales_the_emulated_application(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    hand_over_compiled_engine(installed)
    few = ("--set", "testbed.warmup=30", "--duration", "30", "--policy", "static")
    scale, environment = installed / "bin" / "deepscaler-scale", {"PYTHONPATH": str(installed)}
    done = run(scale, *few, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    decisions = (tmp_path / done.stdout.strip() / "decisions.csv").read_text().splitlines()
    assert len(decisions) > 10 and "frontend" in decisions[1]


def test_without_a_configuration_the_command_says_so(installed: Path, tmp_path: Path) -> None:
    scale = installed / "bin" / "deepscaler-scale"
    done = run(scale, "--once", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 1 and done.stdout == ""
    assert "config/boutique.yaml" in done.stderr and done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------------- make
OLD = """#!/bin/sh
exec "{python}" -c "import sys; sys.version_info = (3, 10, 13, 'final', 0); exec(sys.argv[1])" "$2"
"""
"""Runs `python -c CODE` as Python 3.10 would."""


def makefile(directory: Path) -> Path:
    """A directory with the Makefile, and the path of an interpreter that says it is old."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, directory)
    python = directory / "python3.10"
    python.write_text(OLD.format(python=sys.executable), encoding="utf-8")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    "target", ["", "install", "demo", "test", "live", "lint", "types", "bench", "prometheus"]
)
def test_an_old_python_is_named_in_one_line(target: str, tmp_path: Path) -> None:
    python = makefile(tmp_path)
    done = run("make", *filter(None, [target]), f"PYTHON={python}", cwd=tmp_path)
    assert done.returncode != 0 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert f"needs Python 3.11 or newer; {python} is 3.10.13. Run make PYTHON=python3.13" in line
    assert not (tmp_path / ".venv").exists()


def test_an_environment_of_an_old_python_is_named_too(tmp_path: Path) -> None:
    python = makefile(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python.rename(tmp_path / ".venv" / "bin" / "python")
    done = run("make", "lint", cwd=tmp_path)
    assert "; .venv/bin/python is 3.10.13. Remove .venv and run make PYTHON=python3.13" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_python_that_isnt_there_is_named_too(tmp_path: Path) -> None:
    makefile(tmp_path)
    done = run("make", "PYTHON=nonesuch", cwd=tmp_path)
    assert "nonesuch is not there. Run make PYTHON=python3.13" in done.stderr and done.stderr.count("\n") == 1


def test_this_python_is_new_enough(tmp_path: Path) -> None:
    makefile(tmp_path)
    assert run("make", "python", f"PYTHON={sys.executable}", cwd=tmp_path).returncode == 0


def test_the_workflow_tries_the_pythons_that_the_package_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    [job] = workflow["jobs"].values()
    named = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"]]
    assert job["strategy"]["matrix"]["python"] == named
    assert {"run": ".ci/run"} in job["steps"] and os.access(ROOT / ".ci" / "run", os.X_OK)
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
