"""Imports point one way, third-party packages have homes, and nothing starts torch that doesn't need it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("metrics_fetch", "data_process", "main", "predict_scale", "similarity", "calculate")
PACKAGES = ("deepscaler", "model", "testbed", "sendFlow")
ALLOWED = {
    "model": {"model"},
    "deepscaler": {"deepscaler", "model"},
    "testbed": {"testbed", "deepscaler", "sendFlow"},
    "sendFlow": {"sendFlow", "deepscaler"},  # what isn't Locust's shares settings and errors
    **{
        script: {"deepscaler", "model", "testbed"} for script in SCRIPTS
    },  # main.py: names of the networks, shape of the progress
}
"""Of our own packages, what each may import."""
HOMES = {
    "torch": ("model/", "deepscaler/learning/"),
    "requests": ("deepscaler/adapters/", "testbed/live/prometheus_server.py"),
    "kubernetes": ("deepscaler/adapters/",),
    "urllib3": ("deepscaler/adapters/",),  # the official Kubernetes client lets its errors through
    "locust": ("sendFlow/",),
    "gevent": ("sendFlow/",),
    "numba": ("testbed/engine/kernel.py",),
    "aiohttp": ("testbed/live/", "testbed/kubernetes_api/"),
    "cramjam": ("testbed/live/prometheus_server.py",),
    "google": ("testbed/live/prometheus_server.py", "testbed/kubernetes_api/"),
    "pydantic": ("deepscaler/settings/", "deepscaler/adapters/", "testbed/application.py"),
    "yaml": ("deepscaler/settings/", "deepscaler/adapters/", "testbed/", "sendFlow/load_generator.py"),
    "scipy": ("deepscaler/statistics.py", "deepscaler/graphs/", "deepscaler/labels/"),
    "matplotlib": ("deepscaler/pictures/",),
    "networkx": ("deepscaler/pictures/",),
    "PIL": ("deepscaler/pictures/",),  # comes with matplotlib
    "pandas": ("deepscaler/", "testbed/", *(f"{script}.py" for script in SCRIPTS)),
    "tqdm": ("testbed/", *(f"{script}.py" for script in SCRIPTS)),
    "numpy": ("",),
}
"""Where each third-party package may be imported; a package that isn't here may be imported nowhere."""
CALLED_LATE = ("torch", "kubernetes", "matplotlib", "numba")
"""Heavy or optional: imported by those who use them, not by all who start."""


def sources() -> list[Path]:
    files = [ROOT / f"{script}.py" for script in SCRIPTS]
    return files + [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


EDGES = [(str(path.relative_to(ROOT)), name) for path in sources() for name in sorted(imported(path))]


def owner(file: str) -> str:
    return file.split("/", maxsplit=1)[0].removesuffix(".py")


def test_the_files_are_found():
    assert len(EDGES) > 200
    assert {owner(file) for file, _ in EDGES} == {*SCRIPTS, *PACKAGES}


def test_our_own_packages_import_one_way():
    own = {*PACKAGES, *SCRIPTS}
    wrong = [
        f"{file} imports {name}"
        for file, name in EDGES
        if (top := name.split(".")[0]) in own and top not in ALLOWED[owner(file)]
    ]
    assert not wrong


def test_no_script_is_imported():
    assert not [
        f"{file} imports {name}"
        for file, name in EDGES
        if name.split(".")[0] in SCRIPTS and owner(file) != name.split(".")[0]
    ]


def test_the_model_knows_torch_numpy_and_the_standard_library_only():
    tops = {name.split(".")[0] for file, name in EDGES if file.startswith("model/")}
    assert tops - sys.stdlib_module_names <= {"model", "torch", "numpy"}


def test_third_party_packages_stay_in_their_homes():
    own = {*PACKAGES, *SCRIPTS}
    foreign = [
        (file, name.split(".")[0])
        for file, name in EDGES
        if name.split(".")[0] not in own | sys.stdlib_module_names
    ]
    unknown = sorted({top for _, top in foreign} - HOMES.keys())
    assert not unknown, "give it a home in this file, and a pin in requirements.txt"
    assert not [f"{file} imports {top}" for file, top in foreign if not file.startswith(HOMES[top])]


def test_what_the_testbed_reads_of_send_flow_knows_no_locust():
    asked = {
        name.split(".")[1]
        for file, name in EDGES
        if file.startswith("testbed/") and name.startswith("sendFlow.")
    }
    while True:
        below = {
            name.split(".")[1]
            for file, name in EDGES
            for one in asked
            if file == f"sendFlow/{one}.py" and name.startswith("sendFlow.")
        }
        if below <= asked:
            break
        asked |= below
    assert "trace" in asked
    for module in asked:
        assert not {name.split(".")[0] for file, name in EDGES if file == f"sendFlow/{module}.py"} & {
            "locust",
            "gevent",
        }, module


def test_the_engine_is_numbers_only():
    tops = {name.split(".")[0] for file, name in EDGES if file == "testbed/engine/kernel.py"}
    assert tops - sys.stdlib_module_names <= {"numba", "numpy"}


LOADED = "import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}} & {{{names}}}))"


def loaded(code: str, *names: str) -> list[str]:
    """Which of these packages a fresh interpreter has loaded after `code`."""
    text = LOADED.format(code=code, names=", ".join(map(repr, names)))
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_scripts_other_than_training_start_without_what_they_may_not_need():
    others = [script for script in SCRIPTS if script != "main"]
    assert loaded(f"import {', '.join(others)}", *CALLED_LATE, "requests", "testbed", "locust") == []


def test_training_starts_without_the_testbed():
    assert loaded("import main", "torch", "testbed", "numba", "kubernetes", "locust", "requests") == ["torch"]


def test_the_testbed_starts_without_torch():
    assert (
        loaded(
            "import testbed, testbed.experiments.runs",
            "torch",
            "locust",
            "kubernetes",
            "matplotlib",
            "aiohttp",
        )
        == []
    )


@pytest.mark.parametrize("script", ["calculate", "similarity"])
def test_help_is_one_screen_and_needs_no_torch(script):
    code = f"import contextlib, {script}\nwith contextlib.suppress(SystemExit): {script}.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage:") and done.stderr == ""
    assert loaded(code, "torch", "matplotlib", "numba") == []
