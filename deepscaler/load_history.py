"""The load of an application over weeks: one number per minute."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoadHistory:
    """Requests per second that come to all entries together, at regular times.

    Attributes:
        start: time that the first value is of, in seconds since the epoch; each value is the mean of the
            step that ends then.
        step: seconds between values.
        load: `[K]`; NaN where unknown.
    """

    start: float
    step: float
    load: Array

    @property
    def end(self) -> float:
        """Time that the last value is of."""
        return self.start + (len(self.load) - 1) * self.step

    def since_known(self) -> LoadHistory:
        """The same from the first known value on."""
        known = np.flatnonzero(np.isfinite(self.load))
        first = int(known[0]) if len(known) else len(self.load)
        return replace(self, start=self.start + first * self.step, load=self.load[first:])

    def bridged(self, longest: int) -> LoadHistory:
        """The same with gaps of at most `longest` values filled by interpolation."""
        known = np.flatnonzero(np.isfinite(self.load))
        if len(known) < 2:
            return self
        rows = np.arange(len(self.load))
        after = np.searchsorted(known, rows)
        inside = (after > 0) & (after < len(known))
        gap = np.diff(known)[np.clip(after - 1, 0, len(known) - 2)] - 1
        bridge = inside & (gap <= longest)
        return replace(self, load=np.where(bridge, np.interp(rows, known, self.load[known]), self.load))

    def at(self, times: Array) -> Array:
        """The load at any times, interpolated; NaN outside, and where a neighbour is unknown."""
        places = (np.asarray(times, np.float64) - self.start) / self.step
        inside = (places >= 0.0) & (places <= len(self.load) - 1)
        low = np.where(inside, places, 0.0).astype(np.int64)
        high = np.minimum(low + 1, len(self.load) - 1)
        part = np.where(inside, places - low, 0.0)
        exact = part < 1e-9  # an unknown value behind an exact one doesn't matter
        above = np.where(exact, 0.0, self.load[high] * part)
        found: Array = np.where(inside, self.load[low] * (1.0 - part) + above, np.nan)
        return found
