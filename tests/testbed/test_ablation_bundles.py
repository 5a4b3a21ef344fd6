"""The bundles of the ablation: the commands that train them, and the graph whose services are exchanged."""

from __future__ import annotations

import numpy as np
from helpers.paths import ROOT

from deepscaler.graphs.priors import read_graph, write_graph
from deepscaler.settings import Experiment, load_section
from testbed.experiments.ablation_bundles import commands, permuted


def test_no_service_keeps_its_place_in_the_permuted_graph(tmp_path) -> None:
    rng = np.random.default_rng(2)
    graph = np.triu(rng.random((10, 10)), 1)
    found = permuted(graph)
    np.testing.assert_allclose(np.sort(found, axis=None), np.sort(graph, axis=None))
    marked = permuted(np.diag(np.arange(10.0)))
    assert (np.diag(marked) != np.arange(10)).all()
    write_graph(tmp_path / "permuted.csv", tuple("abcdefghij"), found)
    np.testing.assert_allclose(read_graph(tmp_path / "permuted.csv")[1], found, rtol=1e-6)


def test_the_experiment_runs_the_bundles_that_the_command_trains() -> None:
    experiment = load_section(Experiment, ROOT / "config/experiments/learned.yaml", [])
    trained = " ".join(commands(["num_iter=1"]))
    bundles = [
        text.partition("=")[2]
        for variant in experiment.variants.values()
        for text in variant.set
        if text.startswith("scale.bundle=")
    ]
    assert len(bundles) == 3 and all(f"--model_save_path {bundle}" in trained for bundle in bundles)
    assert trained.count("train.graph.learner=none --set num_iter=1") == 2
    assert set(experiment.variants) <= set(experiment.policies)


def test_as_many_trainings_as_another_experiment_compares() -> None:
    experiment = load_section(Experiment, ROOT / "config/experiments/graph_seeds.yaml", [])
    trained = " ".join(commands(trainings=3))
    for name in experiment.policies:
        for text in experiment.variants[name].set if name in experiment.variants else ():
            assert f"--model_save_path {text.partition('=')[2]}" in trained
    assert trained.count("train.seed=2") == trained.count("train.seed=3") == 2
