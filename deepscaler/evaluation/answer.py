"""The answer of a comparison in sentences: who wins, where, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepscaler.evaluation.comparison import REFERENCES
from deepscaler.evaluation.portraits import Portrait, loads_of
from deepscaler.evaluation.text import number
from deepscaler.statistics import holm, nan_mean, paired, t_interval

SURE = 0.05
"""Below this p, after Holm's correction, a difference isn't called chance."""


@dataclass(frozen=True)
class Win:
    """The policy with the lowest realised cost, among those that don't know the future.

    All of it is about the runs (a load and a seed each) that all these policies made: what one of them met
    alone would tell of that load, and not of the policy.

    Attributes:
        best: its name.
        cost: its mean realised cost in core-hours.
        interval: 95 % of that mean; None with fewer than two runs.
        second: the next, or "" without a rival.
        saved: how much less than the next it costs, as a share of the next's cost.
        saved_interval: 95 % of that share; None with fewer than two pairs.
        pairs: number of runs per policy.
        further: number of runs that not all of them made, which aren't counted.
        level: rivals whose cost isn't told apart from the best one's, by ranks or by the mean's interval.
        tuned: families that take part with another setting on each load, the cheapest there.
    """

    best: str
    cost: float
    interval: tuple[float, float] | None
    second: str
    saved: float
    saved_interval: tuple[float, float] | None
    pairs: int
    further: int
    level: tuple[str, ...]
    tuned: tuple[str, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether the next one is told apart."""
        return bool(self.second) and self.second not in self.level


COSTS_UNKNOWN = "The runs don't say what their loads needed, so their real costs can't be compared."
NOTHING_SHARED = (
    "No winner is named: there is no load and seed that all policies met and of which all costs are known."
)


def winner(portraits: Sequence[Portrait]) -> Win | str:
    """Who has the lowest realised cost, and who can't be told apart from it; or why nobody is named.

    Where no run is shared by all policies, as each load has other settings of a family, families compete.
    """
    known = [
        one
        for one in portraits
        if one.outcome.entrant.policy.family not in REFERENCES and not math.isnan(one.cost)
    ]
    if not known:
        return COSTS_UNKNOWN
    families, tuned = _families(known)
    for names, together in (([one.name for one in known], ()), (families, tuned)):
        costs: dict[str, dict[str, float]] = {}
        for one, name in zip(known, names, strict=True):
            if name:
                costs.setdefault(name, {})[f"{one.load} {one.outcome.unit}"] = one.cost
        first, *others = costs.values()
        units = [unit for unit in first if all(unit in values for values in others)]
        if units:
            shared = {name: {unit: values[unit] for unit in units} for name, values in costs.items()}
            further = len({unit for values in costs.values() for unit in values}) - len(units)
            return _ranked(shared, further, together)
    return NOTHING_SHARED


def _families(portraits: Sequence[Portrait]) -> tuple[list[str], tuple[str, ...]]:
    """For each run its family's name, or "" if another setting is cheaper on that load; and these families.

    A policy without a setting, or the only one of its family, keeps its name.
    """
    costs: dict[str, dict[str, dict[str, list[float]]]] = {}
    for one in portraits:
        costs.setdefault(_family(one), {}).setdefault(one.load, {}).setdefault(one.name, []).append(one.cost)
    members = {family: {name for load in loads.values() for name in load} for family, loads in costs.items()}
    called = {family: family if len(own) > 1 else next(iter(own)) for family, own in members.items()}
    best = {
        (family, load): min(found, key=lambda name: (nan_mean(found[name]), name))
        for family, loads in costs.items()
        for load, found in loads.items()
    }
    names = [called[_family(one)] if best[_family(one), one.load] == one.name else "" for one in portraits]
    return names, tuple(family for family, own in members.items() if len(own) > 1)


def _family(one: Portrait) -> str:
    entrant = one.outcome.entrant
    return one.name if entrant.policy.knob is None else str(Path(entrant.directory, entrant.policy.family))


def _ranked(costs: Mapping[str, Mapping[str, float]], further: int, tuned: tuple[str, ...]) -> Win:
    """The winner of policies, or families, with the same runs."""
    means = {name: nan_mean(list(values.values())) for name, values in costs.items()}
    best, *rivals = sorted(means, key=lambda name: (means[name], name))
    own = costs[best]
    compared = {name: paired(own, costs[name]) for name in rivals}
    adjusted = dict(zip(rivals, holm([compared[name]["p"] for name in rivals]), strict=True))
    level = tuple(
        name
        for name in rivals
        if not (adjusted[name] < SURE and _below_zero(compared[name]["mean_difference_ci"]))
    )
    second = rivals[0] if rivals else ""
    saved, bounds = math.nan, None
    if second:
        saved = -compared[second]["mean_difference"] / means[second]
        if compared[second]["mean_difference_ci"] is not None:
            low, high = compared[second]["mean_difference_ci"]
            bounds = (-high / means[second], -low / means[second])
    interval = t_interval(list(own.values()), least=0.0)
    return Win(best, means[best], interval, second, saved, bounds, len(own), further, level, tuned)


def winners_by_load(portraits: Sequence[Portrait]) -> dict[str, Win | str]:
    """Load -> its winner (or why nobody is named), in the order of the runs."""
    return {load: winner([one for one in portraits if one.load == load]) for load in loads_of(portraits)}


def told(win: Win | str) -> str:
    """Who wins, by how much and how sure, in one or two sentences."""
    if isinstance(win, str):
        return win
    text = f"{win.best} has the lowest realised cost: {win.cost:.2f} core-hours per run"
    if not win.second:
        return f"{text}; it has no rival here."
    text += f", {100 * win.saved:.0f} % below the next, {win.second}"
    text += f" (95 % {_percent(win.saved_interval)}, {win.pairs} pairs)" if win.saved_interval else ""
    if win.further:
        text += f"; that counts the {win.pairs} of {win.pairs + win.further} loads and seeds that all ran on"
    if win.tuned:
        text += f"; of {' and '.join(win.tuned)} each load's cheapest setting counts, picked from these runs"
    if not win.level:
        sure = f"each rival's p is below {SURE} after Holm's correction, and its interval leaves 0 out"
        return f"{text}. That isn't chance: {sure}."
    if win.sure:
        return f"{text}. {', '.join(win.level)} aren't told apart from it."
    return f"{text}. That may be chance: {', '.join(win.level)} aren't told apart from it."


def _below_zero(bounds: tuple[float, float] | None) -> bool:
    return bounds is not None and bounds[1] < 0


def _percent(bounds: tuple[float, float]) -> str:
    return f"[{100 * bounds[0]:.0f}, {100 * bounds[1]:.0f}]"


def prices_told(portraits: Sequence[Portrait]) -> str:
    """What the realised cost counts, and the prices at which the runs were judged."""
    prices = [one.outcome.prices for one in portraits]
    shortage, start = _each(one.shortage for one in prices), _each(one.start for one in prices)
    return (
        "Realised cost: the core-hours held, plus those that the true load needed and that weren't there, "
        f"times {shortage}, plus {start} seconds of holding per pod started."
    )


def _each(prices: Iterable[float]) -> str:
    """One price, or all those that cases of the comparison have."""
    return " or ".join(f"{price:g}" for price in sorted(set(prices)))


def by_load(portraits: Sequence[Portrait], policies: Sequence[str]) -> list[list[str]]:
    """Rows: load, policy with the lowest cost, how sure; then per policy `violating % @ core-hours`."""
    rows = []
    for load, win in winners_by_load(portraits).items():
        here = [one for one in portraits if one.load == load]
        named = win if isinstance(win, Win) else None
        best = "-" if named is None else named.best
        sure = "-" if named is None or not named.second else ("no" if named.level else "yes")
        rows.append([load, best, sure, *(_violations_at_cost(here, name) for name in policies)])
    return rows


def _violations_at_cost(portraits: Sequence[Portrait], name: str) -> str:
    own = [one.outcome.measures for one in portraits if one.name == name]
    rate, cores = (nan_mean([row[key] for row in own]) for key in ("violation_rate", "core_hours"))
    return f"{number(rate, 1, 100)} % @ {number(cores, 2)}" if own else "-"
