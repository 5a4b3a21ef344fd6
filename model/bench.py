"""How fast a network trains and forecasts; `python -m deepscaler.learning.bench` measures all of them.

A training step is loss, gradient and Adam step on a fixed graph. Network, yardstick (`model.yardstick`), bf16
autocast and a large matrix product take turns, round by round, so that other work on the machine slows all of
them alike. Times are medians.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from model.flop import counted_flop
from model.layers import Graphs
from model.network import Network, Shape
from model.networks import build_network
from model.windows import Known, Windows
from model.yardstick import yardstick

ROUNDS = 9
PRODUCT = 1024
"""Rows and columns of the matrices that the machine's rate is measured with."""
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Speed:
    """A network at a size.

    Attributes:
        network: its name.
        N, T, F, C: services, window, features and channels.
        batch: samples per training step.
        samples_per_second: in training.
        infer_ms: milliseconds of one forecast of one window.
        yardstick_samples_per_second: None where the network has no yardstick.
        bf16_samples_per_second: in training under bf16 autocast.
        flop_per_sample: floating-point operations of forward and backward, counted.
        matmul_flops, bf16_matmul_flops: rates of a large product in the same rounds, FLOP/s.
        share_of_matmul_rate: samples_per_second * flop_per_sample / matmul_flops.
        peak_memory_bytes: largest memory of the process while it trains; None where it can't be measured.
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
    """A network at a size, with random data to train on.

    Args:
        name: of the network.
        size: N, T, F, C.
        sizes: all hyper-parameters of the network, with C as its channels.
        batch: samples per training step; by default as many as memory allows, at most 64.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int, int, int],
        sizes: Mapping[str, float],
        batch: int | None = None,
    ) -> None:
        services, window, features, _ = size
        self.name, self.size, self.window = name, size, window
        self.batch = batch or max(1, min(64, 51_200 // (services * window)))
        torch.manual_seed(1)
        self.network = build_network(name, Shape(services, features, window, 1), sizes)
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
        """A function that takes one training step of `network`; with `low` under bf16 autocast."""
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
        """Floating-point operations per sample, forward and backward."""

        def step() -> None:
            summed, _ = self.network.loss(self.x, self.graphs, self.known, self.target)
            summed.backward()  # type: ignore[no-untyped-call]

        return counted_flop(step) / self.batch

    def forecaster(self) -> Callable[[], None]:
        """A function that makes one forecast of one window."""
        x, known = self.x[:1], Known(*(value[:1] for value in self.known))

        @torch.no_grad()
        def forecast() -> None:
            self.network(x, self.graphs, known)

        return forecast


def product_of(dtype: torch.dtype) -> Callable[[], None]:
    """A function that multiplies two large matrices."""
    left, right, out = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(3))

    def multiply() -> None:
        torch.mm(left, right, out=out)

    return multiply


def medians(
    jobs: dict[str, Callable[[], None]], seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each job.

    All jobs run once to warm up, then take turns for about `seconds` of wall time.
    """
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
    """Largest resident memory of the process while `job` runs twice, bytes; None where it can't be measured.

    Linux tells.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what earlier cases left
        RESET.write_text("5")
        job()
        job()
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    except (AttributeError, OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def measure(case: Case, seconds: float, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """All figures of a case; takes about `seconds` and a few steps more."""
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
    return Speed(
        case.name,
        *case.size,
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
