"""What messages tell people to do is accepted: every command, every `--set`, every setting that they name."""

from __future__ import annotations

import ast
import contextlib
import importlib
import logging
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from pydantic import BaseModel

import main as training
from deepscaler.errors import DeepScalerError
from deepscaler.findings import Finding
from deepscaler.graphs.choice import train_command
from deepscaler.learning.bundle_file import read_bundle_file
from deepscaler.logs import JsonLines, Scrubbing
from deepscaler.settings import ModelConfig, Settings, Train, load_settings
from deepscaler.settings.advice import follow, follow_training, train_with
from testbed.experiments.demo import STAGES as STAGES_OF_THE_DEMO

pytestmark = pytest.mark.field
FOLDERS = ("deepscaler", "model", "testbed", "sendFlow")
SCRIPTS = ("metrics_fetch", "data_process", "main", "predict_scale", "similarity", "calculate")
ROOTS: dict[str, type[BaseModel]] = {"train": Train, "model": ModelConfig}
SAMPLES = {
    "path": "model_states/boutique/AdapGLA.pt",
    "service": "adservice",
    "item.service": "adservice",
    "name": "adservice",
    "self.name": "AdapGLA",
    "application": "boutique",
    "config": "config/boutique.yaml",
    "CONFIG": "config/boutique.yaml",
    "data": "data/boutique-od",
    "prior": "od",
    "base": "30",
    "setting": "gateway_port",
}
"""What stands for the expressions in messages."""
PLACEHOLDERS = {"<name>": "req", "FILE": "config/boutique.yaml"}
COMMAND = re.compile(r"python ((?:-m )?[\w./]+)((?: +--?[\w-]+(?:[= ](?!-)(?:[^\s;,)`]|,(?=\S))+)?)*)")
SETTING = re.compile(
    r"(?<![\w./{])((?:app|cluster|collect|process|scale|evaluate|train|model)\.[a-z_][\w.\-]*\w)"
    r"(=(?:\[[^\]]*\]|[^\s;,)'`]+))?"  # a list may hold commas
)
SYNOPSES = re.compile(r"\[--|…|\.\.\.")
"""Docstrings that show what may be given; nobody pastes these."""
SUFFIXES = (".py", ".md", ".json", ".csv", ".yaml")


def text_of(node: ast.AST) -> str | None:
    """A text with samples in place of its expressions; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            parts.append(SAMPLES.get(ast.unparse(part.value), "{}"))
    return "".join(parts)


def messages(path: Path) -> Iterator[str]:
    """Every text of a file, without docstrings of functions, which speak to who reads code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    inside |= {id(node.body[0].value) for node in functions if isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        text = text_of(node)
        if text is not None and (isinstance(node, ast.JoinedStr) or id(node) not in inside):
            for placeholder, sample in PLACEHOLDERS.items():
                text = text.replace(placeholder, sample)
            yield text


@cache
def all_messages() -> tuple[tuple[str, str], ...]:
    paths = [ROOT / f"{script}.py" for script in SCRIPTS]
    paths += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple((str(path.relative_to(ROOT)), text) for path in paths for text in messages(path))


def commands() -> list[tuple[str, str]]:
    """File and command: `python <script> …`, up to what can't belong to it."""
    found = []
    for file, text in all_messages():
        for line in text.splitlines():
            given = [match[0] for match in COMMAND.finditer(line) if not SYNOPSES.search(line)]
            found += [(file, command.rstrip(".'`")) for command in given if "{}" not in command]
    return sorted(set(found))


def settings() -> list[tuple[str, str, str]]:
    """File, dotted key and value ("" where none is given) of each setting that a message names."""
    found = []
    for file, text in all_messages():
        for match in SETTING.finditer(text):
            if not match[1].endswith(SUFFIXES) and match[1] not in modules():
                found.append((file, match[1], (match[2] or "=")[1:]))
    return sorted(set(found))


@cache
def modules() -> frozenset[str]:
    """Dotted names of code that look like settings: `model.services`."""
    names = {f"model.{path.stem}" for path in (ROOT / "model").glob("*.py")}
    return frozenset(names | {"cluster.Cluster"})


def known(kind: Any, parts: list[str]) -> bool:
    """Whether the parts lead to a setting; in a mapping every name does."""
    if not parts:
        return True
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(parts[0])
        return field is not None and known(field.annotation, parts[1:])
    members = getattr(kind, "__args__", ())
    if getattr(kind, "__origin__", None) is dict:
        return known(members[1], parts[1:])
    return any(known(member, parts) for member in members)


# ---------------------------------------------------------------------------------------------- the tests
def test_messages_give_commands_and_settings() -> None:
    assert len(commands()) >= 40 and len(settings()) >= 80
    given = {command for _, command in commands()}
    assert "python data_process.py --set process.label=required" in given
    keys = {key for _, key, _ in settings()}
    assert {"app.services.adservice.scaled", "cluster.prometheus.url", "train.compile"} <= keys


@pytest.mark.parametrize(("file", "command"), commands())
def test_a_command_that_a_message_gives_is_one_that_its_program_takes(file: str, command: str) -> None:
    accept(file, command)


def accept(file: str, command: str) -> None:
    """Let the program's own parser read a command, and its settings what the command sets."""
    words = shlex.split(command)[1:]
    if words[0] == "-m":
        base, arguments = ROOT / words[1].replace(".", "/"), words[2:]
        path = base / "__main__.py" if base.is_dir() else base.with_suffix(".py")
    else:
        path, arguments = ROOT / words[0], words[1:]
    assert path.is_file(), f"{file}: {command}"
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if not arguments or not hasattr(module, "build_parser"):
        return
    taken = module.build_parser().parse_args(arguments)
    if words[0] == "main.py":
        training.read_settings(taken)
    else:
        load_settings(ROOT / "config/boutique.yaml", getattr(taken, "overrides", None) or [])


@pytest.mark.parametrize(
    ("bundle", "network", "data"),
    [
        ("model_states/demo/AdapGLQ.pt", "AdapGLQ", "data/demo_scenarios"),
        ("model_states/demo/AdapGLA.pt", "AdapGLA", "data/demo"),
        ("model_states/train_ticket/AdapGLA-od.pt", "AdapGLA", "data/train_ticket-od"),
        ("elsewhere/mine.pt", "AdapGLA", "data/boutique"),
    ],
)
def test_the_command_for_a_missing_bundle_trains_its_network_on_its_data(
    bundle, network, data, tmp_path
) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(DeepScalerError) as caught:
        read_bundle_file(bundle)
    command = str(caught.value).partition("make it with: ")[2]
    accept("deepscaler/learning/bundle_file.py", command)
    taken = training.build_parser().parse_args(shlex.split(command)[2:])
    assert (taken.model_name, taken.model_save_path) == (network, bundle)
    assert (taken.data_dir or training.read_settings(taken)[0].dataset.data_dir) == data
    planned = load_settings(ROOT / "config/demo_scenarios.yaml").process.output_dir
    assert network != "AdapGLQ" or data == planned


STAGES = tuple(f"{script}.py" for script in SCRIPTS if script != "main")


def test_every_command_in_a_message_names_the_settings_that_were_given() -> None:
    overrides = ["process.output_dir=data/my own", "cluster.prometheus.token=secret-token-1"]
    follow("config/demo.yaml", overrides)
    for command in sorted({command for _, command in commands()}):
        told = str(DeepScalerError(f"found none; make it with: {command}")).partition("make it with: ")[2]
        assert str(DeepScalerError(told)) == told and "secret-token" not in told
        script = command.split()[1]
        if script in STAGES and "--config" not in command:
            assert "--config config/demo.yaml --set 'process.output_dir=data/my own'" in told, told
        if script == "main.py" and "--model_name all" not in told:  # that compares, and makes nothing missing
            assert "--data_dir" in told or "--model_config_path" in told, told
        accept("deepscaler/commands.py", told)


def test_logs_and_findings_name_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    follow("config/train_ticket.yaml")
    record = logging.LogRecord("x", logging.INFO, "", 0, "then: python metrics_fetch.py", None, None)
    expected = "python metrics_fetch.py --config config/train_ticket.yaml"
    assert expected in Scrubbing("%(message)s").format(record) and expected in JsonLines().format(record)
    told = str(Finding("note", "fit", "train again: python main.py"))
    assert told.endswith(
        "python main.py --model_name AdapGLA --data_dir data/train_ticket "
        "--model_save_path model_states/train_ticket/AdapGLA.pt"
    )


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("data_process", []),
        ("predict_scale", ["--policy", "deepscaler", "--check"]),
        ("predict_scale", ["--policy", "deepscaler", "--set", "testbed.duration=60"]),
        ("similarity", []),
        ("calculate", []),
    ],
)
def test_a_script_that_lacks_its_input_names_its_own_settings(
    script: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(ROOT / "config/demo.yaml")
    with contextlib.chdir(tmp_path):
        assert importlib.import_module(script).main(["--config", config, *arguments]) == 1
    out, err = capsys.readouterr()
    told = [match[0] for match in COMMAND.finditer("\n".join([out, *err.splitlines()[-1:]]))]
    assert told and all(config in one or "model_states/demo/" in one for one in told), told


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("data/boutique", "python data_process.py"),
        ("data/demo", "python data_process.py --config config/demo.yaml"),
        ("data/demo_scenarios", "python data_process.py --config config/demo_scenarios.yaml"),
        (
            "data/train_ticket-cc",
            "python data_process.py --config config/train_ticket.yaml --set 'process.priors=[cc]' "
            "--set process.output_dir=data/train_ticket-cc",
        ),
        ("data/train_ticket-x", "python data_process.py --set process.output_dir=data/train_ticket-x"),
        ("elsewhere/demo", "python data_process.py --set process.output_dir=elsewhere/demo"),
    ],
)
def test_training_names_the_settings_that_make_the_data_set_it_lacks(
    directory: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    follow_training(directory, ["--data_dir", directory])
    assert str(DeepScalerError("make it with: python data_process.py")) == f"make it with: {expected}"
    accept("deepscaler/settings/advice.py", expected)
    assert str(DeepScalerError("python main.py")) == f"python main.py --data_dir {directory}"


def test_a_data_set_that_isnt_there_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training.main(["--data_dir", str(tmp_path / "none")]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"make it with: python data_process.py --set process.output_dir={tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        (
            "model_states/demo/AdapGLA.pt",
            "--model_config_path config/demo_datasets.yaml --train_config_path config/demo_train.yaml",
        ),
        (
            "model_states/demo/AdapGLQ.pt",
            "--model_config_path config/demo_scenario_datasets.yaml "
            "--train_config_path config/scenario_train.yaml",
        ),
        ("model_states/boutique/AdapGLA.pt", ""),
    ],
)
def test_the_command_for_a_bundle_is_the_one_that_made_it(
    bundle: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make demo` has it."""
    monkeypatch.chdir(ROOT)
    told = train_with(bundle)
    assert words in told and ("config_path" in told) == bool(words)
    made = [stage for stage in STAGES_OF_THE_DEMO.values() if "main.py" in stage and words and words in stage]
    assert len(made) == bool(words)


@pytest.mark.parametrize("prior", ["od", "cc"])
def test_the_commands_that_learn_from_another_prior_are_accepted(prior: str) -> None:
    made = load_settings(ROOT / "config/boutique.yaml")
    both = train_command(made, str(ROOT / "config/boutique.yaml"), prior).split(" && ")
    assert len(both) == 2
    for command in both:
        accept("deepscaler/graphs/choice.py", command)


@pytest.mark.parametrize(("file", "key", "value"), settings())
def test_a_setting_that_a_message_names_is_there_and_takes_the_value(file: str, key: str, value: str) -> None:
    root, *parts = key.split(".")
    kind = ROOTS.get(root, Settings)
    parts = parts if root in ROOTS else [root, *parts]
    assert known(kind, parts), f"{file}: {key}"
    if value and "{}" not in value and kind is Settings:
        load_settings(ROOT / "config/boutique.yaml", [f"{key}={value.strip('.')}"])


@pytest.mark.parametrize("name", ["adservice", "frontend"])
def test_a_service_is_left_alone_as_the_adapter_says(name: str) -> None:
    made = load_settings(ROOT / "config/boutique.yaml", [f"app.services.{name}.scaled=false"])
    assert [service for service, one in made.app.services.items() if not one.scaled] == [name]


@pytest.mark.parametrize("advice", ["app.services.adservice.scale=false", "scale.perod=3"])
def test_advice_that_is_wrong_would_be_found(advice: str) -> None:
    key, _, value = advice.partition("=")
    assert not known(Settings, key.split("."))
    with pytest.raises(DeepScalerError):
        load_settings(ROOT / "config/boutique.yaml", [f"{key}={value}"])
