"""Scenarios without one of their properties: what ablations take away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from deepscaler.planning.scenarios import Scenarios

Apart = Literal["services", "steps"]
SEED = 0


@dataclass(frozen=True)
class Altered:
    """Changes scenarios on their way to the plan; without arguments it changes nothing.

    Attributes:
        surprise: stands for that of every source; 0 plans as if each course were foreseen (hindsight), 1 as
            if none were (two stages).
        apart: what is drawn independently of each other: `services` breaks what they do together, `steps`
            moreover what follows on what.
    """

    surprise: float | None = None
    apart: Apart | None = None

    def __call__(self, found: Scenarios) -> Scenarios:
        """The scenarios as the plan sees them; each service has the same rates at each step as before."""
        if self.surprise is not None:
            found = replace(found, surprise=self.surprise)
        return found if self.apart is None else replace(found, rates=self._exchanged(found))

    def _exchanged(self, found: Scenarios) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Rates `[M, H, N]` exchanged between scenarios of one source, which all have one weight."""
        rates, random = found.rates.copy(), np.random.default_rng(SEED)
        _, steps, services = rates.shape
        for part in found.by_source().values():
            count = len(rates[part])
            rows = 1 if self.apart == "services" else steps
            order = random.random((count, rows, services)).argsort(axis=0)
            rates[part] = np.take_along_axis(rates[part], np.broadcast_to(order, rates[part].shape), axis=0)
        return rates


AS_THEY_ARE = Altered()
