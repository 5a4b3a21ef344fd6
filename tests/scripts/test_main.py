"""The training script, from a data set to a bundle."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.bundles import write_bundle
from helpers.model_samples import SIZES, make_dataset
from helpers.paths import ROOT

import main as script
from deepscaler.bundle_names import BESIDE
from deepscaler.learning.bundle import load_bundle
from deepscaler.learning.bundle_file import read_bundle_file
from deepscaler.learning.dataset import write_dataset
from deepscaler.learning.report import shipping_line
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import train
from deepscaler.learning.windowing import label_lag, make_windows
from deepscaler.policies.outlook import learned_from
from deepscaler.settings import ModelConfig, Train
from model.trainer import Trainer

ABOUT: dict[str, Any] = {"app": "toy", "base_step": 60.0, "lead": 60.0}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small data set and small settings, entered."""
    torch.set_num_threads(1)
    write_dataset(make_dataset(), tmp_path / "data")
    dataset = {"data_dir": "data", "device": "cpu", "threads": 1}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"dataset": dataset, "AdapGLA": SIZES}))
    (tmp_path / "train.yaml").write_text(
        yaml.safe_dump({"num_epoch": 1, "num_iter": 3, "random_graphs": 1, "refit_epochs": 0})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*extra: str) -> int:
    return script.main(["--model_config_path", "model.yaml", "--train_config_path", "train.yaml", *extra])


def test_it_trains_and_writes_a_bundle_with_its_json_and_graph(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--set", "train.random_graphs=5", "--set", "train.refit_epochs=1") == 0
    out = capsys.readouterr().out
    directory = here / "model_states" / "toy"
    assert sorted(path.name for path in directory.iterdir()) == [
        f"AdapGLA.{suffix}" for suffix in ("affinity.csv", "history.csv", "history.png", "json", "pt")
    ]
    for expected in (
        "validation (replicas",
        "test (replicas",
        "Persistence",
        "SeasonalNaive",
        "under",
        "by step",
        "by service",
        "mail",
    ):
        assert expected in out
    for expected in (
        "learned",
        "prior call",
        "identity",
        "full",
        "entry_to_all",
        "permuted",
        "random_5",
        "AUROC",
        "graph against the prior's calls",
    ):
        assert expected in out
    assert "no edge" in out and "beat AR by MAE" in out.replace("beats", "beat")  # the strongest simple one
    shipping, last = out.splitlines()[-2:]
    digest = sha256((directory / "AdapGLA.pt").read_bytes()).hexdigest()
    assert shipping.startswith("bundle: ") and shipping.endswith(f"sha256 {digest}")
    assert last.startswith("model_states/toy/AdapGLA.pt") and "samples/s, seed 1" in last
    described = json.loads((directory / "AdapGLA.json").read_text())
    assert described["run"]["samples_per_second"] > 0 and set(described["run"]["versions"]) == {
        "torch",
        "numpy",
        "pandas",
    }
    assert described["graph"]["refitted"]["identity"]["test"] > 0
    assert described["training"]["train"]["num_iter"] == 3
    learned = learned_from(read_bundle_file(directory / "AdapGLA.pt"))
    assert learned.inputs is not None and learned.inputs.services == ("web", "cart", "pay", "db", "mail")
    assert learned.inputs.shares[0, 1] == pytest.approx(0.1, abs=0.01) and learned.inputs.usual < 0.1
    assert learned.shares is not None and 0 < learned.shares[0] < 1 and learned.usual_error(100.0) > 0
    assert "inputs" not in described


@pytest.mark.field
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (100_000, "0.10 MiB, 0.13 MiB in base64, which fits into a ConfigMap of 1 MiB"),
        (783_360, "0.75 MiB, 1.00 MiB in base64, which fits into a ConfigMap of 1 MiB"),
        (783_363, "0.75 MiB, 1.00 MiB in base64, which does not fit into a ConfigMap of 1 MiB"),
        (1_090_519, "1.04 MiB, 1.39 MiB in base64, which does not fit into a ConfigMap of 1 MiB"),
    ],
)
def test_it_says_which_way_into_a_cluster_fits_the_size(size: int, expected: str, tmp_path: Path) -> None:
    (tmp_path / "toy.pt").write_bytes(bytes(size))
    line = shipping_line(tmp_path / "toy.pt")
    assert line.startswith(f"bundle: {expected}")
    ways = {path.name for path in (ROOT / "deploy/components").glob("bundle-*")}
    named = set(re.findall(r"bundle-[a-z]+", line))
    assert named == ways - (set() if "which fits" in expected else {"bundle-configmap"})


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(here: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert run("--model_save_path", f"{name}.pt", "--num_iter", "1", "--set", f"train.seed={seed}") == 0
    assert (here / "one.pt").read_bytes() == (here / "again.pt").read_bytes()
    assert (here / "one.pt").read_bytes() != (here / "other.pt").read_bytes()


def test_an_interrupted_run_continues_exactly(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model_save_path", "whole.pt") == 0
    iterate = Trainer.iterate
    done: list[int] = []

    def interrupted(self: Trainer) -> None:
        if self.iteration == 2:
            raise KeyboardInterrupt
        done.append(self.iteration)
        iterate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "iterate", interrupted)
        assert run("--model_save_path", "part.pt") == 130
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("main: interrupted; the same command with --resume continues")
    )
    assert done == [0, 1]
    assert (here / "part.checkpoint.pt").is_file() and not (here / "part.pt").exists()
    assert run("--model_save_path", "part.pt", "--resume", "--set", "train.seed=7") == 1
    assert "made with other data or settings" in capsys.readouterr().err
    assert run("--model_save_path", "part.pt", "--resume") == 0
    assert not (here / "part.checkpoint.pt").exists()
    whole, part = load_bundle(here / "whole.pt"), load_bundle(here / "part.pt")
    assert all(torch.equal(tensor, part.weights[name]) for name, tensor in whole.weights.items())
    assert torch.equal(whole.affinity, part.affinity)
    assert (whole.errors, whole.graph) == (part.errors, part.graph)
    assert run("--model_save_path", "part.pt", "--resume") == 1
    assert "nothing to resume" in capsys.readouterr().err


def test_training_starts_from_a_bundle_where_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model_save_path", "first.pt") == 0
    frozen = [
        "--set",
        "train.optimiser.learning_rate=1e-12",
        "--set",
        "train.graph.learning_rate=1e-12",
        "--num_iter",
        "1",
    ]
    assert run("--init_from", "first.pt", "--model_save_path", "second.pt", *frozen) == 0
    first, second = load_bundle(here / "first.pt"), load_bundle(here / "second.pt")
    for name, tensor in first.weights.items():
        torch.testing.assert_close(second.weights[name], tensor, rtol=1e-5, atol=1e-6)
    write_dataset(make_dataset(services=4), here / "other")
    assert run("--init_from", "first.pt", "--data_dir", "other") == 1
    error = capsys.readouterr().err
    assert (
        "trained for services ['web', 'cart', 'pay', 'db', 'mail'], "
        "this training has ['web', 'cart', 'pay', 'db']" in error
    )


def test_the_gate_takes_what_is_better_refuses_what_is_worse_and_rolls_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, gated = here / "a.pt", ("--model_name", "AR", "--model_save_path", "a.pt", "--gate")
    assert run(*gated) == 0 and "there is no running bundle" in capsys.readouterr().out
    trained = path.read_bytes()
    write_bundle(path, ("web", "cart", "pay", "db", "mail"), [999] * 5, ("pod", "req", "cpu"), **ABOUT)
    wasteful = path.read_bytes()
    assert run(*gated) == 0
    out = capsys.readouterr().out
    assert "a.pt: replaced: the new bundle: its decisions cost -" in out and path.read_bytes() == trained
    assert run(*gated) == 3 and "it is the running bundle, bit by bit" in capsys.readouterr().out
    enough = write_bundle(path, ("web", "cart", "pay", "db", "mail"), [8] * 5, ("pod", "req", "cpu"), **ABOUT)
    assert run(*gated) == 3
    out = capsys.readouterr().out
    assert "a.pt: stays: the new bundle: its decisions cost +" in out and "a.candidate.pt (" in out
    assert json.loads((here / "a.gate.json").read_text())["taken"] is False
    kept = enough.read_bytes()
    assert run("--model_save_path", "a.pt", "--rollback") == 0
    digest = sha256(wasteful).hexdigest()
    assert f"a.pt: sha256 {digest} again; a.previous.pt is sha256" in capsys.readouterr().out
    assert path.read_bytes() == wasteful and (here / "a.previous.pt").read_bytes() == kept
    assert run("--rollback") == 1 and "give it by --model_save_path" in capsys.readouterr().err


def test_flags_win_over_yaml_and_without_them_yaml_holds(here: Path) -> None:
    flags = [
        "--num_iter",
        "9",
        "--max_graph_num",
        "2",
        "--data_dir",
        "elsewhere",
        "--set",
        "train.num_epoch=4",
        "--set",
        "model.AdapGLA.order=3",
    ]
    parsed = script.build_parser().parse_args(
        ["--model_config_path", "model.yaml", "--train_config_path", "train.yaml", *flags]
    )
    config, settings = script.read_settings(parsed)
    assert (settings.num_iter, settings.num_epoch, settings.graph.max_graph_num, settings.random_graphs) == (
        9,
        4,
        2,
        1,
    )
    assert (config.dataset.data_dir, config.AdapGLA.order, config.AdapGLA.graph_channels) == (
        "elsewhere",
        3,
        16,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "num_iter=3"], "expected model.<key>=value or train.<key>=value"),
        (["--set", "train.nonsense=3"], "nonsense: unknown key"),
        (["--num_iter", "0"], "num_iter: Input should be greater than or equal to 1"),
        (["--data_dir", "absent"], "make it with: python data_process.py"),
        (["--set", "model.dataset.device=abacus"], "model.dataset.device: 'abacus' can't be used"),
        (["--set", "model.AdapGLA.kernel=4"], "model.AdapGLA: kernel: 4 is even"),
        (["--init_from", "absent.pt"], "absent.pt: no such bundle"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_what_can_not_be_is_one_line_on_stderr(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
    assert len(lines) == 1 and lines[0].startswith("main: ") and message in lines[0]


def test_a_series_too_short_for_the_window_says_how_many_windows_there_are_and_what_to_change(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(make_dataset(length=100, window=40), here / "short")
    assert run("--data_dir", "short") == 1
    error = capsys.readouterr().err
    assert (
        "no window fits the validation split (windows: train 10, validation 0, test 0): "
        "a window of 40 + 1 steps takes 41 rows" in error
    )
    assert "lower process.window" in error


def test_without_priors_and_without_a_test_split_it_trains_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make_dataset()
    write_dataset(replace(whole, priors={}, bounds=(1200, len(whole.times))), here / "bare")
    assert run("--data_dir", "bare", "--num_iter", "1") == 0
    described = json.loads((here / "model_states/toy/AdapGLA.json").read_text())
    assert described["graph"]["best_iteration"] == 1  # as history.csv counts
    out = capsys.readouterr().out
    assert "test (" not in out and "validation MAE" in out and "AUROC" not in out


def test_it_says_how_many_epochs_will_run_and_keeps_the_forecasts_where_asked(
    here: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    assert run("--num_iter", "2", "--num_epoch", "3", "--save_forecasts") == 0
    said = "AdapGLA: at most 12 epochs: 2 iterations of up to 3 of the network and as many of the graph"
    assert said in caplog.text
    with np.load("model_states/toy/AdapGLA.forecasts.npz") as kept:
        errors = load_bundle("model_states/toy/AdapGLA.pt").errors["test"]["AdapGLA"]
        found = np.abs(kept["test_forecast"] - kept["test_truth"])
        assert np.nanmean(found) == pytest.approx(errors["mae"])
        by_pair = np.nanmean(found, axis=0).T
    np.testing.assert_allclose(errors["mae_by_service_and_step"], by_pair)
    scale = load_bundle("model_states/toy/AdapGLA.pt").normalizer.label_scale
    np.testing.assert_allclose(errors["mae_z_by_service_and_step"], by_pair / scale[:, None], rtol=1e-5)
    assert "MAE z" in capsys.readouterr().out
    assert run("--model_name", "AR") == 0 and "AR: fitted in closed form, no epochs" in caplog.text
    assert "AR sees no graph, so none is judged." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["AdapGLX", "AdapGLS,", "all,AR", "AdapGLS;AR"])
def test_networks_that_there_are_not_are_refused_with_those_there_are(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("--model_name", name)
    assert "allowed: AdapGLA, " in capsys.readouterr().err


def test_several_networks_are_compared_side_by_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "{seeds: [1], epochs: 1, channels: 4, workers: 1}"
    assert run("--model_name", "STID,AR", "--save_forecasts", "--set", f"train.comparison={small}") == 0
    out = capsys.readouterr().out
    assert "STID, told" in out and "known now, rounded up" in out and "AdapGLA" not in out
    kept = sorted(path.name for path in (here / "model_states/toy/comparison").iterdir())
    assert "STID-told-1.npz" in kept and len(kept) == 7


def test_a_fixed_seed_leaves_the_programs_own_random_numbers_alone(here: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert run("--num_iter", "1") == 0
    assert torch.equal(torch.rand(1), expected)


def test_the_label_known_now_is_older_by_the_lead_it_looks_ahead() -> None:
    assert label_lag({"lead": 105.0, "base_step": 15.0, "step": 60.0}) == 3
    assert label_lag({"lead": 0.0, "base_step": 15.0, "step": 60.0}) == 0
    assert label_lag({"lead": 60.0, "base_step": 60.0, "step": 60.0}) == 0


def test_statistics_are_per_service_and_of_the_training_split() -> None:
    dataset = make_dataset()
    windows = make_windows(dataset, torch.device("cpu"))
    training = windows.series[: dataset.bounds[0]]
    torch.testing.assert_close(training.std(0, correction=0), torch.ones(5, 3), rtol=1e-3, atol=1e-3)
    assert dataset.series[:, :, 1].std(0).max() > 300 * dataset.series[:, :, 1].std(0).min()


def test_unfit_labels_never_make_a_nan_loss(tmp_path: Path) -> None:
    dataset = make_dataset()
    labels = dataset.labels.copy()
    labels[::3] = np.nan
    labels[:, 4] = np.nan  # a service that was never labelled
    config = ModelConfig.model_validate({"AdapGLA": SIZES, "dataset": {"device": "cpu", "threads": 1}})
    settings: dict[str, Any] = {"num_epoch": 1, "num_iter": 1, "random_graphs": 0, "refit_epochs": 0}
    task = TrainingTask(
        replace(dataset, labels=labels), "AdapGLA", config, Train.model_validate(settings), tmp_path / "x.pt"
    )
    bundle = train(task).bundle
    assert all(torch.isfinite(tensor).all() for tensor in bundle.weights.values())
    assert np.isfinite(bundle.errors["test"]["AdapGLA"]["mae"])
    assert np.isnan(bundle.errors["test"]["AdapGLA"]["mae_by_service"][4])


def test_a_comparison_isnt_written_over_a_bundle(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model_name", "AR,Persistence", "--model_save_path", "mine.pt") == 1
    assert "mine.pt: a comparison of networks is a .json" in capsys.readouterr().err
    (here / "mine.json").mkdir()
    assert run("--model_name", "AR,Persistence", "--model_save_path", "mine.json") == 1
    assert "mine.json: a comparison of networks is a .json file" in capsys.readouterr().err
    (here / "file").touch()
    assert run("--model_name", "AR,Persistence", "--model_save_path", "file/x.json") == 1
    assert capsys.readouterr().err.startswith("main: file: can't be written (")
    assert run("--model_save_path", "file/x.pt") == 1
    assert "can't be written (" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("AdapGLA.v2", "a bundle's name ends in .pt; try AdapGLA.v2.pt"),
        ("AdapGLA", "a bundle's name ends in .pt"),
        ("states", "a bundle's name ends in .pt"),
        ("states.pt", "this is a directory"),
        *((f"AdapGLA.{word}.pt", "another name is needed") for word in BESIDE),
    ],
)
@pytest.mark.parametrize("how", [[], ["--gate"], ["--rollback"]], ids=["train", "gate", "rollback"])
def test_a_place_where_no_bundle_can_stand_is_refused_before_anything_is_written(
    how: list[str], place: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for directory in ("states", "states.pt"):
        (here / directory).mkdir()
    for name in ("AdapGLA", "AdapGLA.previous"):
        write_bundle(here / f"{name}.pt")
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert run("--model_name", "AR", "--model_save_path", place, *how) == 1
    assert f"--model_save_path {place}: " in (error := capsys.readouterr().err) and message in error
    assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before
