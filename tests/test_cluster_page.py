"""The Python commands of docs/cluster.md in their order: from the first check to a controller that acts."""

from __future__ import annotations

import csv
import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import kustomize
from helpers.live_shop import live_shop
from helpers.paths import ROOT

from deepscaler.learning.report import shipping_line
from deepscaler.settings import load_settings

PAGE = ROOT / "docs/cluster.md"
SAMPLES = 520
SHORTER = {
    "--last 2d": "--last 125m",
    "--duration 172800": "--duration 2",
    "--set cluster.kind=kubernetes": "--set cluster.kind=kubernetes --set process.window=10",
}
"""What would take days."""
ENDLESS = "--duration 2"
"""Added to what runs until it is stopped; the first tick is made at once."""
ELSEWHERE = {
    "kubectl": "tests/test_manifests.py runs those that need no container",
    "docker": "tests/test_deploy.py lays out what the Dockerfiles copy and starts it",
    "kind": "needs containers",
    "istioctl": "needs Istio",
    "curl": "needs Istio's gateway",
    "sh": "tests/send_flow checks the flags of sendFlow/sendLoop.sh",
}
pytestmark = pytest.mark.field


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if line.strip()]


def test_every_command_of_the_page_is_run_here_or_elsewhere() -> None:
    programs = {line.split()[0] for line in commands()}
    assert programs - set(ELSEWHERE) == {"printf", "python"} and set(ELSEWHERE) <= programs
    assert [line.split()[0] for line in commands()[:2]] == ["printf", "python"] and "--check" in commands()[1]


def shortened(line: str) -> list[str]:
    """The words of a command, with spans that a test can wait for."""
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    words = shlex.split(line, comments=True)
    if words[1] == "predict_scale.py" and not {"--duration", "--once", "--check"} & set(words):
        words += ENDLESS.split()
    return words


def test_the_python_commands_of_the_page_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config/cluster.yaml` is what the page's command makes, with the addresses of this test's servers."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", "config")
    for name in ("scenario", "demo"):
        Path(f"config/{name}_train.yaml").write_text(
            yaml.safe_dump({"num_epoch": 1, "num_iter": 1, "random_graphs": 0, "refit_epochs": 0})
        )
    sizes = {"dataset": {"device": "cpu", "threads": 1}, "AdapGLQ": {"channels": 8, "blocks": 1}}
    Path("config/demo_scenario_datasets.yaml").write_text(yaml.safe_dump(sizes))
    todo = [line for line in commands() if line.split()[0] in ("printf", "python")]
    subprocess.run(todo.pop(0), shell=True, check=True)
    made = yaml.safe_load(Path("config/cluster.yaml").read_text())
    with live_shop(load_settings("config/cluster.yaml").app, SAMPLES) as shop:
        for item in kustomize.render(ROOT / "deploy/overlays/act"):
            if "Role" in item["kind"]:
                shop.store.create(item)
        there = {"prometheus": {"url": shop.prometheus}, "kubeconfig": shop.kubeconfig(tmp_path)}
        own = {**made, "cluster": made["cluster"] | there, "process": {"window": 20}}
        Path("config/cluster.yaml").write_text(yaml.safe_dump(own))
        assert len(todo) >= 9
        for line in todo:
            _, script, *arguments = shortened(line)
            before = shop.replicas()
            status = importlib.import_module(script.removesuffix(".py")).main(arguments)
            shown = capsys.readouterr()
            first = line == todo[0]  # the bundle isn't there yet, and nothing else is missing
            short = "--counterfactual" in arguments and "run longer" in shown.err  # a week is a second here
            assert status == (first or short), f"{line}: {shown.err}"
            missing = [text.split()[1:3] for text in shown.out.splitlines() if text.startswith("MISSING")]
            assert missing == ([["policy", "deepscaler:"]] if first else []), shown.out
            writes = not {"--dry-run", "--check"} & set(arguments) and script == "predict_scale.py"
            assert shop.replicas() == before or writes, line
        assert shop.leases() == [""]  # it led, and gave the lead back
        with Path("runs/boutique/deepscaler-1000/decisions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert (rows[0]["mode"], rows[-1]["mode"]) == ("dry_run", "act")
        assert float(rows[-1]["predicted"]) > 0  # what the trained bundle predicted
        assert Path("model_states/boutique/AdapGLQ.pt").is_file()
    assert "bundle-configmap" in shipping_line(Path("model_states/boutique/AdapGLA.pt"))
