"""Settings that are too large, too deep or lead into themselves are refused within bounds."""

import subprocess
import sys

import pytest
from helpers.paths import ROOT

from deepscaler.errors import SettingsError
from deepscaler.settings import load_settings

pytestmark = pytest.mark.stress
APP = "app: {name: shop, services: {web: }, entries: [{name: GET /, service: web}]}\n"
BOMB = "".join(f"  b{level}: &b{level} [{', '.join([f'*b{level - 1}'] * 10)}]\n" for level in range(1, 10))


def refusal(tmp_path, text, *overrides):
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        load_settings(path, overrides)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("[" * 5000, "more than 40 levels"),
        ("{a: " * 5000, "more than 40 levels"),
        ("&a [*a]", "an alias leads into itself"),
        ("&a {b: *a}", "an alias leads into itself"),
        ("2026-13-45", "none of its type"),
        ("!!timestamp now", "none of its type"),
        ("!!float many", "none of its type"),
        ("!!binary é", "not valid YAML"),
        ("9" * 5000, "none of its type"),
    ],
)
def test_a_value_that_cant_be_read_is_one_line(tmp_path, value, says):
    assert says in refusal(tmp_path, f"{APP}scale: {{run_dir: {value}}}\n") + refusal(
        tmp_path, APP + f"scale:\n  run_dir: {value}\n"
    )
    assert "--set scale.run_dir=" in refusal(tmp_path, APP, f"scale.run_dir={value}")


def test_a_file_that_is_too_large_is_refused(tmp_path):
    assert "more than 1 MiB" in refusal(tmp_path, APP + "# " + "x" * 2**20)


def test_lists_that_stand_for_a_billion_values_are_refused_within_bounds(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(f"{APP}scale:\n  b0: &b0 [a, a, a, a, a, a, a, a, a, a]\n{BOMB}  run_dir: *b9\n")
    script = f"""
import re, resource
from deepscaler.errors import SettingsError
from deepscaler.settings import load_settings
size = 1024 * int(re.search(r"VmSize:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + 100 * 2**20,) * 2)
try:
    load_settings({str(path)!r})
except SettingsError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "stands for more than 100000 values" in done.stdout


def test_merged_keys_and_plain_aliases_still_work(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(
        APP + "scale:\n  hpa: &h {tolerance: 0.2}\n  guard_rails: {<<: {max_replicas: 7}}\nprocess: {}\n"
    )
    settings = load_settings(path)
    assert settings.scale.guard_rails.max_replicas == 7 and settings.scale.hpa.tolerance == 0.2
