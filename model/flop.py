"""Floating-point operations, counted, and how many threads a training step of so many keeps busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.layers import Graphs
from model.network import Network
from model.windows import Windows

FLOP_PER_THREAD = 1e9
"""What one thread does in a training step before a second one pays.

Measured on two cores with AdapGLA of 3 to 53 MFLOP per window and 64 windows per step: up to 1 GFLOP two
threads are slower than one, or as fast; from 2.7 GFLOP on they are 15 to 56 % faster.
"""


def counted_flop(call: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    ops = torch.ops.aten
    uncounted = {
        ops.addmm_: _added_product_flop,
        ops.mkldnn_rnn_layer: _rnn_flop,
        ops.mkldnn_rnn_layer_backward: _rnn_backward_flop,
    }
    with FlopCounterMode(display=False, custom_mapping=uncounted) as counter:
        call()
    return int(counter.get_total_flops())


def training_step_flop(network: Network, graphs: Graphs, windows: Windows, ends: Tensor, batch: int) -> int:
    """Floating-point operations of one training step: three times those of the way forward.

    Args:
        network: ready to forecast.
        graphs: that it mixes over.
        windows: series and labels.
        ends: rows that windows end at, `[M]`; the first one is counted.
        batch: windows per step.
    """
    one, training = ends[:1], network.training
    network.eval()
    with torch.no_grad():
        forward = counted_flop(
            lambda: network.loss(windows.inputs(one), graphs, windows.known(one), windows.targets(one))
        )
    network.train(training)
    return 3 * forward * batch


def busy_threads(flop: int) -> int:
    """How many threads pay for a training step of `flop`: no more than there are, and at least one.

    Small networks thereby compute the same on any number of cores.
    """
    return max(1, min(torch.get_num_threads(), int(flop / FLOP_PER_THREAD)))


def _added_product_flop(base: Any, left: Any, right: Any, **more: Any) -> int:
    """Operations of base + left right."""
    return int(2 * left[0] * left[1] * right[1])


def _rnn_flop(x: Any, inputs: Any, recurrent: Any, *rest: Any, **more: Any) -> int:
    """Operations of a recurrent layer over x `[T, B, F]`.

    Its maps are inputs `[G C, F]` and recurrent `[G C, C]`, with G gates.
    """
    return int(2 * x[0] * x[1] * inputs[0] * (inputs[1] + recurrent[1]))


def _rnn_backward_flop(x: Any, inputs: Any, recurrent: Any, *rest: Any, **more: Any) -> int:
    """Operations of its way back: twice those of the way forward."""
    return 2 * _rnn_flop(x, inputs, recurrent)
