"""similarity.py, run through main([...])."""

import json

import numpy as np
import pytest
from helpers.paths import ROOT

import similarity
from deepscaler.bundle_names import BESIDE
from deepscaler.graphs.priors import write_graph

CHAIN = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], float)


def run_script(output, *more):
    return similarity.main(["--config", str(ROOT / "config/boutique.yaml"), "--output", str(output), *more])


@pytest.fixture
def csvs(tmp_path):
    paths = [tmp_path / "call.csv", tmp_path / "AdapGLA-od.affinity.csv"]
    write_graph(paths[0], ("frontend", "cart", "db"), CHAIN)
    write_graph(paths[1], ("frontend", "cart", "db"), CHAIN * 0.8)
    return [str(path) for path in paths]


def test_graphs_given_by_hand(csvs, tmp_path, capsys):
    assert run_script(tmp_path, "--graphs", *csvs) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["call", "AdapGLA-od", "2", *["1.000"] * 6]
    assert "ignores every edge that only one graph has" in out
    assert (tmp_path / "similarity.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "similarity.json").read_text())["graphs"]["call"]["edges"] == 2


def test_names_and_json(csvs, tmp_path, capsys):
    assert run_script(tmp_path, "--graphs", *csvs, "--names", "truth", "learned", "--json") == 0
    pair = json.loads(capsys.readouterr().out)["pairs"][0]
    assert (pair["first"], pair["second"], pair["published_shared_edge_ratio"]) == ("truth", "learned", 1.0)
    assert run_script(tmp_path, "--graphs", *csvs, "--names", "one") == 1
    assert run_script(tmp_path, "--graphs", csvs[0], csvs[0]) == 1
    assert run_script(tmp_path, "--graphs", csvs[0]) == 1
    assert run_script(tmp_path, "--graphs", csvs[0], str(tmp_path / "none.csv")) == 1
    assert "none.csv: no such graph" in capsys.readouterr().err


def places(tmp_path):
    return [
        "--set",
        f"process.output_dir={tmp_path / 'data'}",
        "--set",
        f"scale.bundle={tmp_path / 'states' / 'AdapGLA.pt'}",
    ]


def test_by_default_the_calls_stand_against_what_was_learned_from_od_and_cc(tmp_path, capsys):
    for path in (
        "data/graphs/call",
        "data/graphs/od",
        "states/AdapGLA-od.affinity",
        "states/AdapGLA-cc.affinity",
        "states/AdapGLA.affinity",
    ):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["graphs"]) == ["call", "AdapGLA-od", "AdapGLA-cc"]


def test_without_those_bundles_it_compares_what_there_is_and_names_the_command(tmp_path, capsys, caplog):
    for path in ("data/graphs/call", "data/graphs/od", "states/AdapGLA.affinity"):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    with caplog.at_level("WARNING"):
        assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["graphs"]) == ["call", "od", "AdapGLA"]
    assert "--set 'process.priors=[cc]'" in caplog.text
    assert "AdapGLA-cc.pt" in caplog.text


def test_what_main_keeps_beside_a_bundle_isnt_compared(tmp_path, capsys):
    """The bundle before a service was added, one that the gate refused, one that is being exchanged."""
    for path in ("data/graphs/calls", "states/AdapGLA.affinity", "states/AdapGLA-v1.previous-load.affinity"):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    for word in BESIDE:
        write_graph(tmp_path / f"states/AdapGLA-od.{word}.affinity.csv", ("frontend", "cart"), CHAIN[:2, :2])
    assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    compared = list(json.loads(capsys.readouterr().out)["graphs"])
    assert compared == ["calls", "AdapGLA-v1.previous-load", "AdapGLA"]


def test_without_any_graph_it_names_the_command(tmp_path, capsys):
    assert run_script(tmp_path, *places(tmp_path)) == 1
    err = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("similarity: two graphs are needed") for line in err) == 1
    assert "python data_process.py" in err[-1]


def test_forty_services_make_a_picture(tmp_path):
    rng = np.random.default_rng(1)
    names = tuple(f"ts-{index}-service" for index in range(41))
    dense = rng.random((41, 41))
    for name, matrix in (
        ("calls", np.triu(dense > 0.9, 1).astype(float)),
        ("learned", dense * (dense > 0.9)),
    ):
        write_graph(tmp_path / f"{name}.csv", names, matrix)
    assert run_script(tmp_path, "--graphs", str(tmp_path / "calls.csv"), str(tmp_path / "learned.csv")) == 0
    assert (tmp_path / "similarity.png").stat().st_size > 20_000


def test_changes_are_printed_for_each_later_pair(tmp_path, capsys):
    after = CHAIN.copy()
    after[0, 1] = 5
    for name, graph in (("calls-1", CHAIN), ("calls-2", after), ("found-1", CHAIN), ("found-2", after)):
        write_graph(tmp_path / f"{name}.csv", ("frontend", "cart", "db"), graph)
    paths = [str(tmp_path / f"{name}.csv") for name in ("calls-1", "calls-2", "found-1", "found-2")]
    assert run_script(tmp_path, "--changes", "--graphs", *paths) == 0
    assert (
        "found-1 -> found-2: rank correlation with the changes of calls-1 -> calls-2 +1.00"
        in capsys.readouterr().out
    )
    assert run_script(tmp_path, "--changes", "--graphs", *paths[:3]) == 1
    assert "needs two or more pairs" in capsys.readouterr().err


def test_calls_stand_beside_what_telemetry_says_and_what_was_learned(tmp_path, capsys):
    for path in ("data/graphs/calls", "data/graphs/structural", "states/AdapGLA.affinity"):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["graphs"]) == ["calls", "structural", "AdapGLA"]
