"""A budget of violating minutes: the price of a shortage that makes a load violate as often as is acceptable.

What a price leads to depends on the load, and loads change, so the price is found by what happens. Two loops
find it. The fast one is adaptive conformal inference on the realised shortages: a violating minute raises the
logarithm of the price by `GAIN`, any other lowers it by `GAIN` times the share that it aims at. Whatever the
load does, as long as prices can move it, violating minutes then come at that share. The slow one, a PI
controller, sets that aim by how much of the budget the last day consumed: less than asked lets the price fall
sooner, more keeps it up.

Source: Gibbs and Candes, "Adaptive conformal inference under distribution shift" (NeurIPS 2021).
Differs: its step acts on the logarithm of a price, and its target is set by the PI controller.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple, Self

from deepscaler.errors import DataError

GAIN = 0.5
"""Rise of the price's logarithm with a violating minute."""
PROPORTIONAL = 1.0
"""Twice the budget consumed makes the fast loop aim at no violation, none of it at twice the share."""
INTEGRAL = 0.25
"""The same for each day that this lasts."""
MOST_AIM = 2.0
"""The fast loop aims at most at so many times the share that is asked."""
REACH = 50.0
"""The price stays between this fraction and this multiple of the prior one."""
LEAST_CORES = 1e-6
"""Core-minutes below which nothing was held: the rest that sums leave behind."""
EASE = 0.25
"""In the last quarter of what the budget may spend above the prior, the highest price falls to the prior."""


class Standing(StrEnum):
    """How a budget stands, in a word that metrics can count by."""

    FIRST_DAY = "first_day"  # nothing is known of a whole day yet
    KEPT = "kept"
    KEPT_AT_LEAST = "kept_at_least"  # and no price could be lower
    EXCEEDED = "exceeded"  # and the price rises, or doesn't fall
    SPENT = "spent"  # a higher price would spend more than it may
    LATE_PODS = "late_pods"  # pods start more slowly than load comes
    NO_HELP = "no_help"  # violating minutes come without a lack of pods


class Minute(NamedTuple):
    """What happened in one minute.

    Attributes:
        number: minutes since the epoch.
        violating: whether the mean entry response exceeded the SLA; None if it isn't known.
        starting: whether pods were starting in it.
        cores: core-minutes of all targets; 0 where unknown.
        prior_cores: those of a plan at the prior price.
    """

    number: int
    violating: bool | None
    starting: bool = False
    cores: float = 0.0
    prior_cores: float = 0.0


@dataclass(frozen=True)
class Account:
    """What became of the budget over the last day.

    Attributes:
        asked: share of violating minutes that is acceptable.
        consumed: share of the known minutes that violated; NaN without any.
        violating: violating minutes.
        known: minutes whose response is known.
        unknown: minutes of the window, since the first one seen, whose response isn't.
        price: of a shortage.
        prior_price: where it began.
        spending: core-hours of the targets over those at the prior price; NaN where that isn't watched.
        standing: how it goes, in a word.
        note: the same in a phrase.
    """

    asked: float
    consumed: float
    violating: int
    known: int
    unknown: int
    price: float
    prior_price: float
    spending: float
    standing: Standing
    note: str

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers and a text, NaN as None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


class Budget:
    """Finds the price of a shortage; it knows only the minutes that it is told.

    Args:
        asked: share of violating minutes that is acceptable, above 0.
        prior: price of the first day, and the middle of the range.
        spending: most core-hours of a day, in multiples of those at the prior price; None: no ceiling.
        window: minutes of a day.
    """

    def __init__(self, asked: float, prior: float, spending: float | None, window: int = 1440) -> None:
        self._asked, self._prior, self._most, self._window = asked, prior, spending, window
        self._minutes: deque[Minute] = deque()
        self._first: int | None = None
        self._offset = self._integral = 0.0
        self._bad = self._known = 0
        self._cores = self._prior_cores = 0.0

    @property
    def price(self) -> float:
        """The price of a shortage now."""
        return self._prior * math.exp(self._offset)

    @property
    def newest(self) -> int | None:
        """Number of the newest minute that it was told."""
        return self._minutes[-1].number if self._minutes else None

    def observe(self, minutes: Iterable[Minute]) -> None:
        """Take minutes in rising order into account; those that aren't newer than the newest are left out."""
        for minute in minutes:
            if self._minutes and minute.number <= self._minutes[-1].number:
                continue
            self._minutes.append(minute)
            self._add(minute, 1)
            self._first = minute.number if self._first is None else self._first
            while self._minutes[0].number <= minute.number - self._window:
                self._add(self._minutes.popleft(), -1)
            if minute.violating is not None and self._settled():
                self._move(minute.violating)

    def rewind(self, number: int) -> None:
        """Forget minutes after `number`: the clock was set back."""
        while self._minutes and self._minutes[-1].number > number:
            self._add(self._minutes.pop(), -1)
        if self._first is not None and self._first > number:
            self._first = None

    def _settled(self) -> bool:
        """Whether the first day is over."""
        return self._first is not None and self._minutes[-1].number - self._first >= self._window

    def _move(self, violating: bool) -> None:
        lowest, highest = self._bounds()
        excess = (self._bad - self._asked * self._known) / (self._asked * self._window)  # of a day's budget
        stuck = (self._offset <= lowest and excess < 0) or (self._offset >= highest and excess > 0)
        if not stuck:
            self._integral += INTEGRAL * excess / self._window
            self._integral = min(max(self._integral, -1.0), 1.0)
        aim = self._asked * min(max(1.0 - PROPORTIONAL * excess - self._integral, 0.0), MOST_AIM)
        self._offset = min(max(self._offset + GAIN * (violating - aim), lowest), highest)

    def _bounds(self) -> tuple[float, float]:
        """Lowest and highest logarithm of the price over the prior."""
        reach, spending = math.log(REACH), self._spending()
        if self._most is None or math.isnan(spending):
            return -reach, reach
        left = (self._most - spending) / (EASE * max(self._most - 1.0, 1e-9))
        return -reach, reach * min(max(left, 0.0), 1.0)

    def _add(self, minute: Minute, sign: int) -> None:
        """Count a minute that comes into the window, or with -1 one that leaves it."""
        self._bad += sign * bool(minute.violating)
        self._known += sign * (minute.violating is not None)
        self._cores += sign * minute.cores
        self._prior_cores += sign * minute.prior_cores

    def _spending(self) -> float:
        return self._cores / self._prior_cores if self._prior_cores > LEAST_CORES else math.nan

    # ------------------------------------------------------------------------------------------ what it tells
    def account(self) -> Account:
        """Where the budget stands."""
        bad, known = self._bad, self._known
        first = self._first if self._first is not None else 0
        span = min((self.newest or 0) - first + 1, self._window) if self._minutes else 0
        consumed = bad / known if known else math.nan
        standing, note = self._standing(consumed, bad)
        return Account(
            asked=self._asked,
            consumed=consumed,
            violating=bad,
            known=known,
            unknown=span - known,
            price=self.price,
            prior_price=self._prior,
            spending=self._spending(),
            standing=standing,
            note=note,
        )

    def _standing(self, consumed: float, bad: int) -> tuple[Standing, str]:
        if not self._minutes or not self._settled():
            moved = abs(self.price / self._prior - 1) > 1e-9  # only where the clock was set back since
            note = (
                "less than a day is known: the price stays"
                if moved
                else "the first day runs at the prior price"
            )
            return Standing.FIRST_DAY, note
        lowest, highest = self._bounds()
        if not consumed > self._asked:
            if self._offset <= lowest + 1e-9:
                return Standing.KEPT_AT_LEAST, "the lowest price already keeps it"
            return Standing.KEPT, "kept"
        if self._offset < highest - 1e-9:
            return Standing.EXCEEDED, "exceeded: the price doesn't fall before that is made up for"
        standing, why = self._hindrance(bad, highest)
        return standing, f"can't be met: {why}"

    def _hindrance(self, bad: int, highest: float) -> tuple[Standing, str]:
        if highest < math.log(REACH) - 1e-9:
            why = f"more would spend over {self._most:g} times the core-hours of the prior price"
            return Standing.SPENT, why
        late = sum(1 for minute in self._minutes if minute.violating and minute.starting)
        if 2 * late >= bad:
            why = f"pods start more slowly than load comes (so in {late} of {bad} violating minutes)"
            return Standing.LATE_PODS, why
        why = f"more replicas don't help (no pod was starting in {bad - late} of {bad} violating minutes)"
        return Standing.NO_HELP, why

    # --------------------------------------------------------------------------------------------- its memory
    def state(self) -> dict[str, Any]:
        """All that it remembers, as plain values."""
        return {
            "first": self._first,
            "offset": self._offset,
            "integral": self._integral,
            "minutes": [list(minute) for minute in self._minutes],
        }

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Go on from what `state` remembers.

        Raises:
            DataError: it isn't such a state.
        """
        try:
            minutes = [_minute(*row) for row in state["minutes"]]
            first = None if state["first"] is None else int(state["first"])
            offset, integral = float(state["offset"]), float(state["integral"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the budget's state can't be read ({error!r}): it begins anew") from error
        rising = all(a.number < b.number for a, b in pairwise(minutes))
        if not (rising and math.isfinite(offset) and math.isfinite(integral)) or (minutes and first is None):
            raise DataError("the budget's state is broken: it begins anew")
        self._minutes, self._first = deque(minutes), first
        self._bad = self._known = 0
        self._cores = self._prior_cores = 0.0
        for minute in minutes:
            self._add(minute, 1)
        reach = math.log(REACH)
        self._offset = min(max(offset, -reach), reach)
        self._integral = min(max(integral, -1.0), 1.0)
        return self


def _minute(number: Any, violating: Any, starting: Any, cores: Any, prior_cores: Any) -> Minute:
    bad = None if violating is None else bool(violating)
    found = Minute(int(number), bad, bool(starting), float(cores), float(prior_cores))
    if not (math.isfinite(found.cores) and math.isfinite(found.prior_cores)):
        raise ValueError("cores that aren't finite")
    return found
