"""Measure how fast the networks train and forecast.

python -m deepscaler.learning.bench --networks AdapGLA --sizes 10,80,4,128
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict

import torch

from deepscaler.learning.hyperparameters import network_sizes
from deepscaler.settings import ModelConfig
from model.bench import Case, Speed, measure
from model.network import Shape
from model.networks import NETWORKS, build_network, parameter_count

SIZES = ((10, 80, 4, 128), (10, 12, 4, 64), (41, 80, 4, 128), (307, 12, 1, 128), (1000, 12, 4, 64))
"""N, T, F, C: services, window, features, channels."""


def trained_networks() -> tuple[str, ...]:
    """Names of the networks that are trained by gradient; the others have no training step to measure."""
    config, smallest = ModelConfig(), Shape(1, 1, 1, 1)
    return tuple(
        name
        for name in NETWORKS
        if parameter_count(build_network(name, smallest, network_sizes(config, name, channels=2)))
    )


def case_of(name: str, size: tuple[int, int, int, int], batch: int | None = None) -> Case:
    """The network `name` at a size; its other hyper-parameters are the settings' defaults."""
    return Case(name, size, network_sizes(ModelConfig(), name, channels=size[3]), batch)


def speed_table(rows: Iterable[Speed]) -> str:
    """Text for people; `ratio` compares the rate before it with the yardstick's."""
    lines = [
        "network    N    T  F   C batch  samples/s  ratio   bf16/s  ratio"
        "  infer ms  MFLOP  share  product GFLOP/s  memory GiB"
    ]
    for row in rows:
        plain = row.yardstick_samples_per_second
        ratios = [
            "     " if plain is None else f"{value / plain:5.2f}"
            for value in (row.samples_per_second, row.bf16_samples_per_second)
        ]
        memory = "        -" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:9.2f}"
        lines.append(
            f"{row.network:8s}{row.N:5d}{row.T:5d}{row.F:3d}{row.C:4d}{row.batch:6d}"
            f"{row.samples_per_second:11.1f}  {ratios[0]}{row.bf16_samples_per_second:9.1f}  {ratios[1]}"
            f"{row.infer_ms:10.2f}{row.flop_per_sample / 1e6:7.0f}{row.share_of_matmul_rate:7.2f}"
            f"{row.matmul_flops / 1e9:10.0f}{row.bf16_matmul_flops / 1e9:6.0f}{memory}"
        )
    return "\n".join(lines)


def size_of(text: str) -> tuple[int, int, int, int]:
    """`10,80,4,128` as N, T, F, C."""
    services, window, features, channels = (int(part) for part in text.split(","))
    return services, window, features, channels


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m deepscaler.learning.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = trained_networks()
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    parser.add_argument("--networks", nargs="+", choices=names, default=list(names), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=size_of, default=list(SIZES), metavar="N,T,F,C")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="seconds of measuring per case (default: %(default)s)"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="use one thread and measure its processor time: for a machine that others use as well",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the figures."""
    arguments = build_parser().parse_args(argv)
    if arguments.processor_time:
        torch.set_num_threads(1)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    rows = [
        measure(case_of(name, size), arguments.seconds, clock)
        for size in arguments.sizes
        for name in arguments.networks
    ]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    print(speed_table(rows))
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
