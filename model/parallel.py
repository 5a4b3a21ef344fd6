"""Ranks of a data-parallel run under torchrun: who takes which windows, and sums over all ranks.

One process alone is rank 0 of 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def launched() -> tuple[int, int, int]:
    """Rank, rank on this machine and number of ranks, as torchrun states them; (0, 0, 1) without it."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    return (int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), ranks) if ranks > 1 else (0, 0, 1)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Inside, the ranks that torchrun started work together, over nccl between GPUs, else over gloo."""
    if launched()[2] == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """The rank of this process."""
    return distributed.get_rank() if _together() else 0


def ranks() -> int:
    """The number of ranks."""
    return distributed.get_world_size() if _together() else 1


def share(ends: Tensor) -> Tensor:
    """This rank's part of a batch: every n-th window; empty where there are fewer windows than ranks."""
    return ends[rank() :: ranks()]


def total(*values: Tensor | float, device: torch.device) -> tuple[float, ...]:
    """Sums over the ranks, in float64."""
    if not _together():
        return tuple(float(value) for value in values)
    packed = torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
    distributed.all_reduce(packed)
    return tuple(packed.tolist())


def wrap(objective: nn.Module) -> nn.Module:
    """The objective, wrapped so that each backward pass averages its gradients over the ranks."""
    if ranks() == 1:
        return objective
    # Buffers aren't copied from the first rank before each pass: they change by the same rule on all.
    return DistributedDataParallel(objective, forward_sync_buffers=False)


def gradients(step: nn.Module, *, exchange: bool) -> AbstractContextManager[None]:
    """The context for a pass forward and back.

    With `exchange` its gradients, and those gathered before, are averaged over the ranks.
    """
    return step.no_sync() if isinstance(step, DistributedDataParallel) and not exchange else nullcontext()
