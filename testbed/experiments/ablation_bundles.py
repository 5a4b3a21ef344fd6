"""Train what config/experiments/learned.yaml compares with: other graphs, and nothing learned at all.

python -m testbed.experiments.ablation_bundles

It needs what `make demo` leaves. The same network is trained on the same data for as long, once without any
edge and once with the learned graph's edges between other services; neither learns a graph. Persistence
learns nothing: its bundle only remembers the training. With `--trainings 3` the network with its learned
graph and the one without edges are trained twice more, from other random weights (for graph_seeds.yaml).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import DataError, DeepScalerError
from deepscaler.graphs.priors import read_graph, write_graph
from deepscaler.logs import VARIABLE

LEARNED = "model_states/demo/AdapGLQ.affinity.csv"
PERMUTED = "data/demo_permuted.csv"
"""The learned graph, its services exchanged."""
GRAPHS = {"without_edges": "identity", "permuted": PERMUTED}
"""Name of the variant -> the prior that it keeps."""
SEED = 1


def build_parser() -> argparse.ArgumentParser:
    """Flags of the trainings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting of main.py",
    )
    parser.add_argument(
        "--trainings",
        type=int,
        default=1,
        metavar="N",
        help="train with and without the graph from N seeds (default: %(default)s)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Permute the learned graph, then run the stages of both variants."""
    arguments = build_parser().parse_args(argv)
    try:
        services, learned = read_graph(LEARNED)
        write_graph(PERMUTED, services, permuted(learned))
        for command in commands(arguments.overrides, arguments.trainings):
            print(f"\n$ {command}", flush=True)
            _run(command)
    except DeepScalerError as error:
        print(f"ablation_bundles: {error}", file=sys.stderr)
        return 1
    return 0


def permuted(graph: NDArray[np.floating]) -> NDArray[np.float64]:
    """The graph with its services exchanged so that each takes the place of another one."""
    order = np.random.default_rng(SEED).permutation(len(graph))
    place = np.empty_like(order)
    place[order] = np.roll(order, 1)  # one cycle through all of them
    return np.asarray(graph, np.float64)[np.ix_(place, place)]


def commands(overrides: Sequence[str] = (), trainings: int = 1) -> list[str]:
    """The stages, as a person would type them."""
    found = []
    further = "".join(f" --set {shlex.quote(text)}" for text in overrides)
    train = (
        "python main.py --model_name AdapGLQ --model_config_path config/demo_scenario_datasets.yaml "
        "--train_config_path config/scenario_train.yaml"
    )
    for name, prior in GRAPHS.items():
        data = f"data/demo_scenarios_{name}"
        found += [
            "python data_process.py --config config/demo_scenarios.yaml "
            f"--set process.priors=[{prior}] --set process.output_dir={data}",
            f"{train} --data_dir {data} --model_save_path model_states/demo/AdapGLQ-{name}.pt "
            f"--set train.graph.learner=none{further}",
        ]
    found.append(
        "python main.py --model_name Persistence --model_config_path config/demo_scenario_datasets.yaml "
        "--train_config_path config/scenario_train.yaml --model_save_path model_states/demo/Persistence.pt"
    )
    for seed in range(2, trainings + 1):
        save = "--model_save_path model_states/demo/AdapGLQ-"
        found += [
            f"{train} --data_dir data/demo_scenarios {save}graph_{seed}.pt --set train.seed={seed}{further}",
            f"{train} --data_dir data/demo_scenarios_without_edges {save}without_edges_{seed}.pt "
            f"--set train.graph.learner=none --set train.seed={seed}{further}",
        ]
    return found


def _run(command: str) -> None:
    quiet = {VARIABLE: "WARNING", **os.environ}
    done = subprocess.run([sys.executable, *shlex.split(command)[1:]], check=False, env=quiet)
    if done.returncode:
        raise DataError(f"exit {done.returncode}: {command}")


if __name__ == "__main__":
    raise SystemExit(main())
