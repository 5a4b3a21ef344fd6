"""The demo types what the README says."""

import re
import shlex
import subprocess
from types import SimpleNamespace

from helpers.paths import ROOT

from testbed.experiments import demo


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block, split into words, without comments."""
    lines = (shlex.split(line, comments=True) for line in block.splitlines())
    return [words for words in lines if words[:1] == ["python"]]


def test_the_commands_of_the_readme_are_the_stages_of_the_demo():
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    stages = [found for block in blocks if len(found := commands(block)) == len(demo.STAGES)]
    assert stages == [[shlex.split(command) for command in demo.STAGES.values()]]


def test_the_demo_prints_each_command_before_it_runs_it(tmp_path, monkeypatch, capsys):
    summary, printed = tmp_path / "summary.json", []

    def run(command, **_):
        printed.append(capsys.readouterr().out.splitlines()[-1])
        return SimpleNamespace(returncode=0)

    summary.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(demo, "SUMMARY", summary)
    monkeypatch.setattr(subprocess, "run", run)
    assert demo.main() == 0
    assert printed == [f"$ {command}" for command in demo.STAGES.values()]


def test_the_demo_ends_with_the_first_stage_that_fails(monkeypatch, capsys):
    statuses = iter([0, 3])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=next(statuses)))
    assert demo.main() == 3
    assert "stage 'process' failed (exit 3)" in capsys.readouterr().err
