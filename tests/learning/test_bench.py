"""The benchmark measures every network that is trained by gradient, and counts what is known on paper."""

from __future__ import annotations

import json

import pytest
import torch

from deepscaler.learning.bench import case_of, main, size_of, trained_networks
from deepscaler.learning.entrants import SIMPLE
from model.networks import NETWORKS

KEYS = {
    "network",
    "N",
    "T",
    "F",
    "C",
    "samples_per_second",
    "infer_ms",
    "yardstick_samples_per_second",
    "bf16_samples_per_second",
}
TINY = (3, 5, 2, 8)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and matrices that processors without fast bf16 multiply at once, too."""
    torch.set_num_threads(1)
    monkeypatch.setattr("model.bench.PRODUCT", 128)


def test_every_network_that_is_trained_by_gradient_is_measured() -> None:
    assert set(NETWORKS) - set(trained_networks()) == set(SIMPLE)


def test_json_gives_each_network_and_size_once_with_the_yardstick_of_the_published_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--json", "--seconds", "0", "--sizes", ",".join(map(str, TINY))]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["network"], row["N"], row["T"], row["F"], row["C"]) for row in rows] == [
        (name, *TINY) for name in trained_networks()
    ]
    assert all(
        set(row) >= KEYS and row["samples_per_second"] > 0 and row["bf16_samples_per_second"] > 0
        for row in rows
    )
    assert [row["network"] for row in rows if row["yardstick_samples_per_second"] is not None] == [
        "AdapGLA",
        "AdapGLT",
    ]
    assert all(0 < row["share_of_matmul_rate"] < 1 and row["flop_per_sample"] > 0 for row in rows)


def test_the_table_names_networks_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--networks", "GCN", "--seconds", "0", "--sizes", "3,5,2,8", "4,5,2,8", "--processor-time"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["GCN", "3", "5", "2", "8"],
        ["GCN", "4", "5", "2", "8"],
    ]


@pytest.mark.parametrize("window", [8, 16])
def test_floating_point_operations_grow_linearly_with_the_window_and_are_as_counted_by_hand(
    window: int,
) -> None:
    services, features, channels = 3, 2, 8
    flop = case_of("LSTM", (services, window, features, channels), batch=4).flop()
    inputs, steps = services * features, window * 2 * 4 * channels
    forward = steps * (inputs + channels) + steps * 2 * channels + 2 * channels * services
    assert flop == pytest.approx(3 * forward, rel=0.02)


@pytest.mark.parametrize("name", ["AdapGLA", "AdapGLT", "AdapGLD"])
def test_cost_of_a_sample_is_at_most_linear_in_the_window_and_free_of_the_batch(name: str) -> None:
    short, long = (case_of(name, (4, window, 2, 16), batch=2).flop() for window in (10, 20))
    assert short < long < 2.3 * short
    assert case_of(name, (4, 10, 2, 16), batch=6).flop() == pytest.approx(short, rel=0.2)


def test_a_size_is_four_numbers() -> None:
    assert size_of("10,80,4,128") == (10, 80, 4, 128)
    with pytest.raises(SystemExit):
        main(["--sizes", "10,80"])
