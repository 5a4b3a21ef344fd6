"""Runs of main.py that are cut short, shared between processes, or fed with odd data."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.model_samples import SIZES, make_dataset, small_settings
from helpers.paths import ROOT

import main as script
from deepscaler.learning.bundle import Bundle, load_bundle, save_bundle
from deepscaler.learning.dataset import Dataset, Normalizer, read_dataset, write_dataset
from deepscaler.learning.hyperparameters import network_sizes
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import fit, train
from deepscaler.settings import ModelConfig, Train
from model.trainer import Trainer

FLAGS = ["--model_config_path", "model.yaml", "--train_config_path", "train.yaml"]
KILLED = """
import os, signal, sys
import main
from model.trainer import Trainer
e_step = Trainer.e_step
def killed(self):
    if self.iteration == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    e_step(self)
Trainer.e_step = killed
main.main(sys.argv[1:])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small data set and small settings, entered."""
    torch.set_num_threads(1)
    write_dataset(make_dataset(length=476), tmp_path / "data")  # 232 windows to train on
    dataset = {"data_dir": "data", "device": "cpu", "threads": 1}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"dataset": dataset, "AdapGLA": SIZES}))
    (tmp_path / "train.yaml").write_text(
        yaml.safe_dump({"num_epoch": 1, "num_iter": 3, "random_graphs": 1, "refit_epochs": 0})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*extra: str) -> int:
    return script.main([*FLAGS, *extra])


def alone(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def trained(data: Dataset, here: Path, *extra: str, name: str = "AdapGLA") -> tuple[int, Path]:
    write_dataset(data, here / "odd")
    return run(
        "--data_dir", "odd", "--model_save_path", "odd.pt", "--num_iter", "1", "--model_name", name, *extra
    ), here / "odd.pt"


def bundle_of(trainer: Trainer, name: str, config: ModelConfig, data: Dataset) -> Bundle:
    """What a training that wasn't judged has learned."""
    network, learner, graph = trainer.network.state_dict(), trainer.learner.state_dict(), trainer.affinity
    sizes, about = network_sizes(config, name), data.meta
    return Bundle(name, sizes, network, learner, graph, graph, graph, data.normalizer, about, {}, {}, {})


def finite(path: Path) -> bool:
    bundle = load_bundle(path)
    tensors = [*bundle.weights.values(), bundle.affinity]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors) and np.isfinite(
        bundle.errors["test"][bundle.network]["mae"]
    )


# ------------------------------------------------------------------------------------------------ interrupted
def test_killed_in_the_middle_of_an_iteration_and_resumed_it_writes_the_same_bytes(here: Path) -> None:
    assert run("--model_save_path", "whole.pt") == 0
    killed = alone("-c", KILLED, *FLAGS, "--model_save_path", "part.pt")
    assert killed.returncode == -signal.SIGKILL
    assert (here / "part.checkpoint.pt").is_file() and not (here / "part.pt").exists()
    assert len(pd.read_csv("part.history.csv")) == 2
    assert run("--model_save_path", "part.pt", "--resume") == 0
    assert (here / "whole.pt").read_bytes() == (here / "part.pt").read_bytes()
    courses = [pd.read_csv(f"{name}.history.csv").drop(columns="seconds") for name in ("whole", "part")]
    pd.testing.assert_frame_equal(*courses)


@pytest.mark.parametrize("kind", ["em", "end_to_end"])
def test_a_run_that_started_from_a_bundle_resumes_without_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    flags = [
        "--num_iter",
        "2",
        "--set",
        "train.graph.learner=antisymmetric",
        "--set",
        f"train.graph.trainer={kind}",
    ]
    assert run("--model_save_path", "first.pt", *flags) == 0
    assert run("--init_from", "first.pt", "--model_save_path", "whole.pt", *flags) == 0
    iterate = Trainer.iterate

    def interrupted(self: Trainer) -> None:
        if self.iteration == 1:
            raise KeyboardInterrupt
        iterate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "iterate", interrupted)
        assert run("--init_from", "first.pt", "--model_save_path", "part.pt", *flags) == 130
    assert run("--model_save_path", "part.pt", "--resume", *flags) == 0
    assert (here / "whole.pt").read_bytes() == (here / "part.pt").read_bytes()


OTHER_DATA: dict[str, dict[str, Any]] = {
    "split": {"bounds": (380, 428)},
    "time of the day": {"times": 7200.0 + 60.0 * np.arange(476)},
    "window": {"meta": {"window": 12}},
    "horizon": {"meta": {"horizon": 3}},
    "lead": {"meta": {"lead": 300.0}},
    "step": {"meta": {"step": 120.0}},
    "services": {"meta": {"services": ["cart", "web", "pay", "db", "mail"]}},
    "features": {"meta": {"features": ["pod", "cpu", "req"]}},
    "label": {"meta": {"label": "observed"}},
}


@pytest.mark.parametrize("changes", OTHER_DATA.values(), ids=OTHER_DATA)
def test_a_checkpoint_of_other_data_is_refused(changes: dict[str, Any]) -> None:
    data, settings = make_dataset(length=476), small_settings()
    other = replace(data, **{**changes, "meta": {**data.meta, **changes.get("meta", {})}})
    made, asked = (TrainingTask(one, "AdapGLA", *settings, Path("x.pt")) for one in (data, other))
    assert made.fingerprint() != asked.fingerprint()


def test_a_checkpoint_of_the_same_data_elsewhere_is_taken(here: Path) -> None:
    data = read_dataset(here / "data")
    moved = replace(data, meta={**data.meta, "source": {"file": "elsewhere"}, "settings": {"plots": True}})
    write_dataset(moved, here / "moved")
    made, asked = (
        TrainingTask(one, "AdapGLA", *small_settings(), Path("x.pt"))
        for one in (data, read_dataset(here / "moved"))
    )
    assert made.fingerprint() == asked.fingerprint()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("AdapGLA", "gates"), ("AdapGLA", "antisymmetric"), ("AdapGLA", "none"), ("GCN", "gates")],
)
def test_a_training_from_a_bundle_has_the_prior_of_its_own_data(here: Path, name: str, kind: str) -> None:
    """What was learned goes on, at a rate of next to nothing as it is; what the data gives is new."""
    data, config, train = make_dataset(length=300), *small_settings(num_iter=1)
    config = config.model_copy(update={"GCN": config.GCN.model_copy(update={"channels": 4})})
    other = replace(data, priors={"call": np.eye(5, k=-1, dtype=np.float32)})

    def fitted(data: Dataset, rate: float, **start: str) -> Trainer:
        changes = {"optimiser": {"learning_rate": rate}, "graph": {"learner": kind, "learning_rate": rate}}
        settings = Train.model_validate({**train.model_dump(), **changes})
        return fit(TrainingTask(data, name, config, settings, here / "x.pt"), **start).trainer

    first, fresh = fitted(data, 1e-2), fitted(other, 1e-12)
    save_bundle(bundle_of(first, name, config, data), here / "first.pt")
    again = fitted(other, 1e-12, init_from=str(here / "first.pt"))
    for found, expected in zip(again.learner.buffers(), fresh.learner.buffers(), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(again.learner.prior(), fresh.learner.prior())
    for found, expected in zip(again.learner.parameters(), first.learner.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again.start, first.affinity if again.learns else fresh.start)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_one_line_that_says_how_to_go_on(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    before, interrupts = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background starts with Ctrl-C ignored
    with monkeypatch.context() as patch:
        e_step = Trainer.e_step
        for last, advice in (
            (0, "no iteration had finished, so nothing is kept"),
            (1, "the same command with --resume continues after"),
        ):
            patch.setattr(
                Trainer,
                "e_step",
                lambda self, last=last: (
                    signal.raise_signal(number) if self.iteration == last else e_step(self)
                ),
            )
            assert run() == code
            captured = capsys.readouterr()
            lines = [line for line in captured.err.splitlines() if " INFO " not in line]
            assert (
                len(lines) == 1 and lines[0].startswith(f"main: interrupted; {advice}") and captured.out == ""
            )
    assert signal.getsignal(signal.SIGTERM) is before
    signal.signal(signal.SIGINT, interrupts)


def test_the_course_of_training_is_a_table_and_a_picture(here: Path) -> None:
    assert run("--model_save_path", "x.pt", "--num_epoch", "2", "--num_iter", "2") == 0
    table = pd.read_csv("x.history.csv")
    assert list(table) == [
        "iteration",
        "epoch",
        "phase",
        "training",
        "validation",
        "learning_rate",
        "seconds",
        "edges",
    ]
    assert table["phase"].tolist() == ["predictor", "predictor", "graph", "graph"] * 2
    assert table["iteration"].tolist() == [1] * 4 + [2] * 4 and table["epoch"].tolist() == [1, 2] * 4
    assert (table["validation"] > 0).all() and (table["seconds"] > 0).all() and (table["edges"] >= 0).all()
    rates = table.loc[table["phase"] == "predictor", "learning_rate"].tolist()
    assert rates == sorted(rates, reverse=True) and rates[0] <= 1e-3
    assert (here / "x.history.png").read_bytes().startswith(b"\x89PNG")


def test_every_prior_of_the_data_set_is_a_candidate(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(length=480)
    other = np.eye(5, k=-1, dtype=np.float32)
    seeds: list[torch.Tensor] = []
    iterate = Trainer.iterate
    monkeypatch.setattr(
        Trainer,
        "iterate",
        lambda self: (seeds.extend(graph for graph, _ in self.candidates.graphs), iterate(self))[1],
    )
    code, _ = trained(replace(data, priors={**data.priors, "cc": other}), here)
    assert code == 0 and len(seeds) == 2
    for graph, prior in zip(seeds, (data.priors["call"], other), strict=True):
        assert torch.equal(graph > 0, torch.from_numpy(prior) > 0)


# ---------------------------------------------------------------------------------------------- two processes
def test_two_ranks_learn_what_one_process_learns_and_only_the_first_speaks(here: Path) -> None:
    settings = [
        "--num_iter",
        "2",
        "--set",
        "model.dataset.batch_size=33",
        "--set",
        "train.refit_epochs=1",
    ]  # a last batch of one window
    assert run("--model_save_path", "one.pt", *settings) == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "main.py")]
    both = alone(*launch, *FLAGS, "--model_save_path", "two.pt", *settings)
    assert both.returncode == 0, both.stderr
    assert len([line for line in both.stdout.splitlines() if line.startswith("two.pt (")]) == 1
    assert (
        len([line for line in both.stderr.splitlines() if "settings: " in line]) == 1
        and "Warning" not in both.stderr
    )
    one, two = load_bundle("one.pt"), load_bundle("two.pt")
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two.affinity, one.affinity, rtol=1e-4, atol=1e-5)
    courses = [pd.read_csv(f"{name}.history.csv")[["training", "validation"]] for name in ("one", "two")]
    pd.testing.assert_frame_equal(*courses, rtol=1e-4)
    assert two.graph["refitted"]["identity"]["test"] == pytest.approx(
        one.graph["refitted"]["identity"]["test"], rel=1e-4
    )


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "what",
    [["--model_name", "all"], ["--model_name", "STID,AR"], ["--model_save_path", "a.pt", "--rollback"]],
)
def test_what_each_rank_would_do_once_more_is_refused(
    what: list[str],
    rank: int,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("WORLD_SIZE", 2), ("RANK", rank), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(logging, "disable", lambda level: None)  # for the tests after this one
    before = sorted(here.rglob("*"))
    assert run(*what) == 1 and sorted(here.rglob("*")) == before
    error = capsys.readouterr().err
    assert (error.startswith("main: --") and "torchrun started 2" in error) == (rank == 0)


# --------------------------------------------------------------------------------------------------- odd data
def changed(**columns: float) -> Dataset:
    """The small data set with one service's features replaced by a value."""
    whole = make_dataset(length=480)
    series = whole.series.copy()
    for name, value in columns.items():
        series[:, 3, whole.meta["features"].index(name)] = value
    return replace(
        whole,
        series=series,
        normalizer=Normalizer.fit(series[: whole.bounds[0]], whole.labels[: whole.bounds[0]]),
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: changed(req=np.nan, cpu=np.nan, pod=np.nan), id="a service that never reported"),
        pytest.param(lambda: changed(req=0.0, cpu=0.0, pod=0.0), id="a service that is off"),
        pytest.param(lambda: changed(cpu=0.25), id="a constant feature"),
        pytest.param(lambda: make_dataset(services=3, length=480), id="three services"),
    ],
)
@pytest.mark.parametrize("name", ["AdapGLA", "AR"])
def test_odd_services_are_trained_with(here: Path, data: object, name: str) -> None:
    code, path = trained(data(), here, name=name)  # type: ignore[operator]
    assert code == 0 and finite(path)


def test_missing_samples_here_and_there_are_trained_with(here: Path) -> None:
    whole = make_dataset(length=480)
    series = whole.series.copy()
    series[np.random.default_rng(1).random(series.shape) < 0.1] = np.nan
    code, path = trained(replace(whole, series=series), here)
    assert code == 0 and finite(path)


def test_two_hundred_services_are_trained_with(here: Path) -> None:
    services, length = 200, 120
    rng = np.random.default_rng(1)
    series = rng.gamma(2.0, 1.0, (length, services, 3)).astype(np.float32)
    labels = np.ceil(series[:, :, 1])
    small = make_dataset(length=480)
    meta = {**small.meta, "services": [f"s{index}" for index in range(services)]}
    prior = (rng.random((services, services)) < 0.01).astype(np.float32)
    normalizer = Normalizer.fit(series[:60], labels[:60])
    data = Dataset(
        60.0 * np.arange(1, length + 1), series, labels, (60, 90), normalizer, meta, {"call": prior}
    )
    code, path = trained(data, here)
    assert code == 0 and finite(path)
    assert load_bundle(path).affinity.shape == (200, 200)


@pytest.mark.parametrize(
    ("extra", "unlabelled", "message"),
    [
        (["--set", "train.optimiser.learning_rate=1e30"], slice(0, 0), "lower the learning rate"),
        ([], slice(240, 360), "no window fits the validation split"),
        ([], slice(0, 240), "no window fits the train split"),
    ],
)
def test_what_can_not_be_learned_from_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], extra: list[str], unlabelled: slice, message: str
) -> None:
    whole = make_dataset(length=480)
    labels = whole.labels.copy()
    labels[unlabelled] = np.nan
    data = replace(whole, labels=labels, normalizer=replace(whole.normalizer))
    code, _ = trained(data, here, *extra)
    lines = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
    assert code == 1 and len(lines) == 1 and lines[0].startswith("main: ") and message in lines[0]


# ---------------------------------------------------------------------------------------- other ways to train
@pytest.mark.parametrize(
    "extra", [["--set", "train.graph.trainer=end_to_end"], ["--set", "train.precision=bf16"]]
)
def test_end_to_end_and_bf16_train_to_a_float32_bundle(here: Path, extra: list[str]) -> None:
    assert run("--model_save_path", "x.pt", "--num_iter", "1", *extra) == 0
    assert {tensor.dtype for tensor in load_bundle("x.pt").weights.values()} == {torch.float32} and finite(
        here / "x.pt"
    )


def test_the_published_settings_train(here: Path) -> None:
    paper = yaml.safe_load((ROOT / "config/train_config_paper.yaml").read_text())
    (here / "train.yaml").write_text(
        yaml.safe_dump({**paper, "num_epoch": 1, "num_iter": 2, "random_graphs": 1, "refit_epochs": 0})
    )
    assert run("--model_save_path", "x.pt") == 0
    bundle = load_bundle("x.pt")
    assert (
        bundle.graph["learner"] == "antisymmetric"
        and torch.equal(bundle.affinity, bundle.reverse)
        and finite(here / "x.pt")
    )


def test_without_a_compiler_it_says_so_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(function: object) -> object:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", broken)
    assert run("--set", "train.compile=true") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
    assert (
        len(lines) == 1
        and "train.compile: torch.compile doesn't work here (No working C++ compiler found)" in lines[0]
    )


@pytest.mark.parametrize(("asked", "per_thread", "used"), [(0, 1e9, 1), (0, 1e3, 3), (2, 1e9, 2)])
def test_training_uses_the_threads_that_pay_and_gives_back_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, per_thread: float, used: int
) -> None:
    monkeypatch.setattr("model.flop.FLOP_PER_THREAD", per_thread)
    config, settings = small_settings()
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"threads": asked})})
    seen: list[int] = []
    task = TrainingTask(
        make_dataset(length=476),
        "AdapGLA",
        config,
        settings,
        tmp_path / "toy.pt",
        report=lambda progress: seen.append(torch.get_num_threads()),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        train(task)
        assert set(seen) == {used} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
