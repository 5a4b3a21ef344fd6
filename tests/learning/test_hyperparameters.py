"""Hyper-parameters stand once, in the settings; `model` has fields of the same names and no defaults."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields

import pytest

from deepscaler.learning.hyperparameters import fill, network_sizes
from deepscaler.settings import DataSettings, Graph, ModelConfig, Optimiser, Train
from model import settings as wanted
from model.networks import NETWORKS
from model.settings import CheckSettings, GraphSettings, LearnerSettings, OptimiserSettings, TrainSettings

READ_BY_LEARNING = {"comparison", "gate", "unrounded", "compile", "random_graphs", "graph_seeds"}
"""Settings of a training that `deepscaler.learning` itself reads."""


def names(*kinds: type) -> set[str]:
    return {item.name for kind in kinds for item in fields(kind)}


def test_both_sides_have_the_same_fields() -> None:
    assert names(OptimiserSettings) == set(Optimiser.model_fields)
    assert names(GraphSettings, LearnerSettings) == set(Graph.model_fields)
    assert names(TrainSettings, CheckSettings) | READ_BY_LEARNING == {*Train.model_fields, "batch_size"}
    assert "batch_size" in DataSettings.model_fields


def test_the_model_has_no_defaults() -> None:
    kinds = [
        kind for kind in vars(wanted).values() if inspect.isclass(kind) and kind.__module__ == wanted.__name__
    ]
    assert len(kinds) == 5
    assert all(
        item.default is MISSING and item.default_factory is MISSING for kind in kinds for item in fields(kind)
    )


def test_settings_arrive_by_their_names() -> None:
    train = Train.model_validate({"num_iter": 7, "graph": {"learning_rate": 0.5, "union_share": 0.25}})
    filled = fill(TrainSettings, train, DataSettings(batch_size=9))
    assert (filled.num_iter, filled.batch_size) == (7, 9)
    assert (filled.graph.learning_rate, filled.graph.union_share) == (0.5, 0.25)
    assert filled.optimiser.learning_rate == train.optimiser.learning_rate
    with pytest.raises(KeyError, match=r"TrainSettings\.batch_size: no such setting"):
        fill(TrainSettings, train)


def test_every_network_has_a_section_whose_keys_are_its_keywords() -> None:
    assert set(ModelConfig.model_fields) - {"dataset"} == set(NETWORKS)
    for name, kind in NETWORKS.items():
        keywords = {
            key: parameter
            for key, parameter in inspect.signature(kind).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        assert set(network_sizes(ModelConfig(), name)) == set(keywords), name
        assert all(parameter.default is inspect.Parameter.empty for parameter in keywords.values()), name


def test_channels_replace_every_size_that_counts_channels() -> None:
    sizes = network_sizes(ModelConfig(), "AdapGLA", channels=6)
    assert (sizes["graph_channels"], sizes["time_channels"], sizes["order"]) == (6, 6, 3)
    assert network_sizes(ModelConfig(), "STID", channels=6)["channels"] == 6
    assert network_sizes(ModelConfig(), "AR", channels=6) == {}
