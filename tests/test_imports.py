"""Imports point one way, third-party packages have homes, and nothing starts torch that doesn't need it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.bundles import write_bundle
from helpers.paths import ROOT, TESTS
from helpers.telemetry import truth

SCRIPTS = ("metrics_fetch", "data_process", "main", "predict_scale", "similarity", "calculate")
PACKAGES = ("deepscaler", "model", "testbed", "sendFlow")
ALLOWED = {
    "model": {"model"},
    "deepscaler": {"deepscaler", "model"},
    "testbed": {"testbed", "deepscaler", "sendFlow"},
    "sendFlow": {"sendFlow", "deepscaler"},  # what isn't Locust's shares settings and errors
    # the scripts ask the model for the names of the networks and for the shape of the progress
    **{script: {"deepscaler", "model", "testbed"} for script in SCRIPTS},
}
"""Of our own packages, what each may import."""
FLOORS = (
    {"settings"},
    {"adapters", "labels", "graphs", "evaluation"},
    {"pictures", "collecting", "planning"},
    {"learning", "reports"},
    {"policies"},
    {"control"},
)
"""The wings of deepscaler/ from the bottom up. Modules at its top are the ground floor, below all of them.

A module may import from its own wing and from any lower floor, but neither from a higher floor nor from a
neighbouring wing.
"""
HOMES = {
    "torch": ("model/", "deepscaler/learning/"),
    "requests": ("deepscaler/adapters/", "testbed/live/"),
    "kubernetes": ("deepscaler/adapters/",),
    "urllib3": ("deepscaler/adapters/",),  # the official Kubernetes client lets its errors through
    "cronsim": ("deepscaler/settings/", "deepscaler/control/"),
    "locust": ("sendFlow/",),
    "gevent": ("sendFlow/",),
    "numba": ("testbed/engine/",),
    "aiohttp": ("testbed/live/",),
    "cramjam": ("testbed/live/",),
    "google": ("testbed/live/",),
    "pydantic_core": ("deepscaler/artefacts.py",),  # comes with pydantic; it reads JSON within bounds
    "pydantic": ("deepscaler/settings/", "deepscaler/adapters/", "deepscaler/runs.py", "testbed/"),
    "yaml": ("deepscaler/settings/", "deepscaler/adapters/", "testbed/", "sendFlow/"),
    "scipy": (
        "deepscaler/statistics.py",
        "deepscaler/graphs/",
        "deepscaler/labels/",
        "testbed/fidelity/",
        "testbed/experiments/recorded.py",
    ),
    "matplotlib": ("deepscaler/pictures/",),
    "networkx": ("deepscaler/pictures/", "deepscaler/policies/pbscaler.py"),
    "PIL": ("deepscaler/pictures/",),  # comes with matplotlib
    "jinja2": ("deepscaler/reports/",),
    "pandas": ("deepscaler/", "testbed/", *(f"{script}.py" for script in SCRIPTS)),
    "distributed": ("testbed/experiments/",),
    "dask": ("testbed/experiments/",),  # distributed's other half
    "tqdm": ("testbed/", *(f"{script}.py" for script in SCRIPTS)),
    "selenium": ("testbed/live/",),
    "psutil": ("testbed/live/",),
    "causallearn": ("testbed/experiments/graph_rivals.py",),  # requirements-graphs.txt
    "tigramite": ("testbed/experiments/graph_rivals.py",),
    "prometheus_client": ("deepscaler/control/", "testbed/live/"),
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


def floor(module: str) -> int:
    """The floor of a module of deepscaler, by its full name."""
    wing = module.split(".")[1]
    if not (ROOT / "deepscaler" / wing).is_dir():
        return 0
    found = [number for number, wings in enumerate(FLOORS, start=1) if wing in wings]
    assert found, f"deepscaler/{wing}/ has no floor: add it to FLOORS in this file"
    return found[0]


def test_no_import_of_deepscaler_runs_up_or_to_a_neighbour():
    wrong = []
    for file, name in EDGES:
        if file.startswith("deepscaler/") and name.startswith("deepscaler."):
            module = file.removesuffix(".py").replace("/", ".")
            own, other = module.split(".")[1], name.split(".")[1]
            if floor(name) > floor(module) or (own != other and floor(name) == floor(module) > 0):
                wrong.append(f"{file} imports {name}")
    assert not wrong


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_no_private_name_is_used_by_another_module():
    """Tests may look inside; the code may not."""
    wrong = []
    for path in sources():
        file, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        aliases = [alias for node in imports for alias in node.names]
        wrong += [f"{file} imports {alias.name}" for alias in aliases if private(alias.name.split(".")[-1])]
        local = {alias.asname or alias.name.split(".")[0] for alias in aliases}
        wrong += [
            f"{file} uses {node.value.id}.{node.attr}"
            for node in nodes
            if isinstance(node, ast.Attribute)
            and private(node.attr)
            and isinstance(node.value, ast.Name)
            and node.value.id in local
        ]
    assert not wrong


def test_the_emulated_kubernetes_api_stands_alone():
    names = {name for file, name in EDGES if file.startswith("testbed/kubernetes_api/")}
    own = {name for name in names if name.split(".")[0] in {*PACKAGES, *SCRIPTS}}
    assert own and all(name.startswith("testbed.kubernetes_api") for name in own)
    assert {name.split(".")[0] for name in names - own} - sys.stdlib_module_names == {"yaml"}


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
    assert not sorted(HOMES.keys() - {top for _, top in foreign}), "nothing imports it any more"


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


def fresh(code: str, *names: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter says that runs `code`; its last line lists which packages it has loaded."""
    text = LOADED.format(code=code, names=", ".join(map(repr, names)))
    return subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)


def loaded(code: str, *names: str) -> list[str]:
    return fresh(code, *names).stdout.splitlines()[-1].split()


POLICY_AT_FIRST_TORCH = """
import builtins, os
real, found = builtins.__import__, []
def watched(name, *rest):
    if name == "torch":
        found.append(os.environ.get("OMP_WAIT_POLICY"))
    return real(name, *rest)
builtins.__import__ = watched
import {name}
print(found[0])
"""


@pytest.mark.parametrize(
    ("name", "own", "seen"),
    [
        ("model.network", None, "PASSIVE"),
        ("deepscaler.learning.train", None, "PASSIVE"),
        ("main", None, "PASSIVE"),
        ("main", "ACTIVE", "ACTIVE"),
    ],
)
def test_threads_of_torch_yield_while_they_wait_unless_told_otherwise(name, own, seen):
    """Torch reads the policy when it is loaded, so it must be in the environment by then."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    code = POLICY_AT_FIRST_TORCH.format(name=name)
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [seen]


def test_training_starts_without_the_testbed():
    assert loaded("import main", "torch", "testbed", "numba", "kubernetes", "locust", "requests") == ["torch"]


def test_the_testbed_starts_without_torch():
    absent = ("torch", "locust", "kubernetes", "matplotlib", "aiohttp")
    assert loaded("import testbed, testbed.experiments.runs", *absent) == []


def test_policies_without_a_network_start_without_torch(tmp_path):
    """`reactive_holistic` reads what the bundle says beside its weights."""
    write_bundle(tmp_path / "AdapGLA.pt", demand=truth(services=("web", "api", "db")).to_dict())
    code = f"""
sys.path.insert(0, {str(TESTS)!r})
from helpers.fakes import make_settings
from deepscaler.policies.registry import make_policy
names = "reactive_holistic hpa_70 static explore season queueing_trend predictive_hpa target_tracking"
for name in names.split():
    make_policy(name, make_settings(bundle={str(tmp_path / "AdapGLA.pt")!r}))
"""
    assert loaded(code, *CALLED_LATE) == []


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "main"])
def test_help_comes_without_what_is_slow_to_load(script):
    code = f"import contextlib, {script}\nwith contextlib.suppress(SystemExit): {script}.main(['--help'])"
    done = fresh(code, *CALLED_LATE, "networkx", "testbed", "requests", "locust")
    assert done.stdout.startswith("usage:") and done.stderr == ""
    assert done.stdout.splitlines()[-1] == ""
