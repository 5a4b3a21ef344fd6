"""How fast the networks train and forecast: `python -m model.bench [--json] [--networks AdapGLA] [--sizes 10,80,4,128]`.

A training step is loss, gradient and Adam step on a fixed graph. Network, yardstick (`model.yardstick`), bf16 autocast and a
large matrix product take turns, round by round, so that whatever else the machine does slows all of them alike; medians.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.layers import Graphs
from model.network import Network, Shape
from model.networks import build_network
from model.windows import Known, Windows
from model.yardstick import yardstick

SIZES = ((10, 80, 4, 128), (10, 12, 4, 64), (41, 80, 4, 128), (307, 12, 1, 128), (1000, 12, 4, 64))
"""N, T, F, C."""
OTHER_SIZES: dict[str, dict[str, float]] = {
    "AdapGLA": {"order": 3, "kernel": 5, "blocks": 2},
    "AdapGLT": {"order": 3, "blocks": 2},
    "AdapGLD": {"diffusion": 2, "layers": 2},
    "AdapGLS": {"blocks": 2, "dropout": 0.1, "twin": True},
    "STID": {"layers": 3, "slots": 288, "dropout": 0.15},
    "LSTM": {"layers": 2},
    "GCN": {"layers": 2},
    "ASTGCN": {"order": 3, "kernel": 3, "blocks": 2},
    "DCRNN": {"diffusion": 2, "layers": 2},
}
"""Of the networks that are trained by gradient, beside the channels: as in `train_datasets_speed.yaml`."""
TWO_WIDTHS = ("AdapGLA", "AdapGLT")
ROUNDS = 9
PRODUCT = 1024
"""Rows and columns of the matrices that the machine's rate is measured with."""
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Row:
    """A network at a size. Memory is the process's largest while it trains; None: not measured, or no yardstick.

    Attributes:
        batch: samples a step.
        flop_per_sample: of forward and backward, counted.
        share_of_matmul_rate: samples_per_second * flop_per_sample / matmul_flops.
        matmul_flops, bf16_matmul_flops: rates of a large product in the same rounds, FLOP/s.
    """

    network: str
    N: int
    T: int
    F: int
    C: int
    batch: int
    samples_per_second: float
    infer_ms: float
    yardstick_samples_per_second: float | None
    bf16_samples_per_second: float
    flop_per_sample: float
    matmul_flops: float
    bf16_matmul_flops: float
    share_of_matmul_rate: float
    peak_memory_bytes: int | None


class Case:
    """A network at a size, with data to train on."""

    def __init__(self, name: str, size: tuple[int, int, int, int], batch: int | None = None) -> None:
        services, window, features, channels = size
        self.name, self.size, self.window = name, size, window
        self.batch = batch or max(1, min(64, 51_200 // (services * window)))
        torch.manual_seed(1)
        wide = (
            {"graph_channels": channels, "time_channels": channels}
            if name in TWO_WIDTHS
            else {"channels": channels}
        )
        self.network = build_network(
            name, Shape(services, features, window, 1), {**wide, **OTHER_SIZES[name]}
        )
        graph = torch.rand(services, services) * (1 - torch.eye(services)) / services
        self.graphs = Graphs(graph, graph)
        rows = window + self.batch
        windows = Windows(
            torch.randn(rows, services, features),
            torch.randn(rows, services),
            window=window,
            horizon=1,
            dilation=1,
        )
        ends = torch.arange(window - 1, rows - 1)
        self.x, self.known, self.target = windows.inputs(ends), windows.known(ends), windows.targets(ends)

    def trainer(self, network: Network, low: bool = False) -> Callable[[], None]:
        """A training step of `network`; low: under bf16 autocast."""
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
        network.train()

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                summed, number = network.loss(self.x, self.graphs, self.known, self.target)
            (summed / number).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        return step

    def flop(self) -> float:
        """Of a sample, forward and backward."""
        ops = torch.ops.aten
        uncounted = {
            ops.addmm_: added_product_flop,
            ops.mkldnn_rnn_layer: rnn_flop,
            ops.mkldnn_rnn_layer_backward: rnn_backward_flop,
        }
        with FlopCounterMode(display=False, custom_mapping=uncounted) as counter:
            summed, _ = self.network.loss(self.x, self.graphs, self.known, self.target)
            summed.backward()  # type: ignore[no-untyped-call]
        return int(counter.get_total_flops()) / self.batch

    def forecaster(self) -> Callable[[], None]:
        """One forecast of one window."""
        x, known = self.x[:1], Known(*(value[:1] for value in self.known))

        @torch.no_grad()
        def forecast() -> None:
            self.network(x, self.graphs, known)

        return forecast


def added_product_flop(base: Any, left: Any, right: Any, **more: Any) -> int:
    """base + left right."""
    return int(2 * left[0] * left[1] * right[1])


def rnn_flop(x: Any, inputs: Any, recurrent: Any, *rest: Any, **more: Any) -> int:
    """An LSTM layer over x `[T, B, F]`; inputs `[4C, F]`, recurrent `[4C, C]`."""
    return int(2 * x[0] * x[1] * inputs[0] * (inputs[1] + recurrent[1]))


def rnn_backward_flop(x: Any, inputs: Any, recurrent: Any, *rest: Any, **more: Any) -> int:
    """Twice the forward's."""
    return 2 * rnn_flop(x, inputs, recurrent)


def product_of(dtype: torch.dtype) -> Callable[[], None]:
    """A large matrix product."""
    left, right, out = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(3))

    def multiply() -> None:
        torch.mm(left, right, out=out)

    return multiply


def medians(
    jobs: dict[str, Callable[[], None]], seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each job, by turns, for about `seconds` of wall time; each once before, to warm up."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    ends = time.perf_counter() + seconds
    for job in jobs.values():
        job()
    for done in range(ROUNDS):
        if done and time.perf_counter() > ends:
            break
        for name, job in jobs.items():
            began = clock()
            job()
            found[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in found.items()}


def peak_memory(job: Callable[[], None]) -> int | None:
    """Largest resident memory of the process while `job` runs twice, bytes; None where the system doesn't tell (Linux does)."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier cases left isn't this one's
        RESET.write_text("5")
        job()
        job()
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    except (AttributeError, OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def measure(case: Case, seconds: float, clock: Callable[[], float] = time.perf_counter) -> Row:
    """All figures of a case, in about `seconds` and a few steps more."""
    steps = {"network": case.trainer(case.network), "bf16": case.trainer(case.network, low=True)}
    memory = peak_memory(steps["network"])
    flop = case.flop()
    plain = yardstick(case.network, case.window)
    if plain is not None:
        steps["yardstick"] = case.trainer(plain)
    products = {"float32": product_of(torch.float32), "bfloat16": product_of(torch.bfloat16)}
    took = medians({**steps, **products}, seconds, clock)
    case.network.eval()
    infer = medians({"one": case.forecaster()}, min(seconds, 1.0), clock)["one"]
    rate = case.batch / took["network"]
    matmul, low_matmul = (2 * PRODUCT**3 / took[name] for name in products)
    services, window, features, channels = case.size
    return Row(
        network=case.name,
        N=services,
        T=window,
        F=features,
        C=channels,
        batch=case.batch,
        samples_per_second=rate,
        infer_ms=1000 * infer,
        yardstick_samples_per_second=case.batch / took["yardstick"] if plain is not None else None,
        bf16_samples_per_second=case.batch / took["bf16"],
        flop_per_sample=flop,
        matmul_flops=matmul,
        bf16_matmul_flops=low_matmul,
        share_of_matmul_rate=rate * flop / matmul,
        peak_memory_bytes=memory,
    )


def table(rows: Iterable[Row]) -> str:
    """Text for people; ratios are to the yardstick."""
    lines = [
        "network    N    T  F   C batch  samples/s  ratio   bf16/s  ratio  infer ms  MFLOP  share  product GFLOP/s  memory GiB"
    ]
    for row in rows:
        plain = row.yardstick_samples_per_second
        ratios = [
            "     " if plain is None else f"{value / plain:5.2f}"
            for value in (row.samples_per_second, row.bf16_samples_per_second)
        ]
        memory = "        -" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:9.2f}"
        lines.append(
            f"{row.network:8s}{row.N:5d}{row.T:5d}{row.F:3d}{row.C:4d}{row.batch:6d}{row.samples_per_second:11.1f}  {ratios[0]}"
            f"{row.bf16_samples_per_second:9.1f}  {ratios[1]}{row.infer_ms:10.2f}{row.flop_per_sample / 1e6:7.0f}"
            f"{row.share_of_matmul_rate:7.2f}{row.matmul_flops / 1e9:10.0f}{row.bf16_matmul_flops / 1e9:6.0f}{memory}"
        )
    return "\n".join(lines)


def size_of(text: str) -> tuple[int, int, int, int]:
    """`10,80,4,128` -> N, T, F, C."""
    services, window, features, channels = (int(part) for part in text.split(","))
    return services, window, features, channels


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m model.bench", description="Speed of the networks.")
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    parser.add_argument(
        "--networks", nargs="+", choices=tuple(OTHER_SIZES), default=list(OTHER_SIZES), metavar="NAME"
    )
    parser.add_argument("--sizes", nargs="+", type=size_of, default=list(SIZES), metavar="N,T,F,C")
    parser.add_argument("--seconds", type=float, default=6.0, help="of rounds a case (default: %(default)s)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="one thread, by its processor time: for a machine that others use",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the figures."""
    arguments = build_parser().parse_args(argv)
    if arguments.processor_time:
        torch.set_num_threads(1)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    rows = [
        measure(Case(name, size), arguments.seconds, clock)
        for size in arguments.sizes
        for name in arguments.networks
    ]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    print(table(rows))
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
