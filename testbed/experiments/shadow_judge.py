"""How far a shadow run foretells what happens when the policy is in charge, on runs where that is known.

python -m testbed.experiments.shadow_judge --config config/demo.yaml --policy plan_bootstrap
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepscaler.artefacts import write_json
from deepscaler.errors import DataError, DeepScalerError, SettingsError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.labels.minutes import FEWEST_MINUTES
from deepscaler.labels.record import fitted_to
from deepscaler.learning.description import load_demand
from deepscaler.logs import start_logging
from deepscaler.policies.registry import TOLD
from deepscaler.reports.counterfactual import (
    Counterfactual,
    counterfactual,
    replayed,
    to_dict,
    write_counterfactual,
)
from deepscaler.reports.decided import Estimate
from deepscaler.runs import PolicyName, Run
from deepscaler.settings import Settings, load_settings
from deepscaler.text import aligned
from testbed.cluster.emulation import make_plan, make_program
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.flags import positive
from testbed.experiments.replay import SEEDS, Replayed, replay
from testbed.experiments.shadow import follow, shadow_run

DAY = "day"
"""A day as people live it, in the length of the run."""
SHAPES = (
    *("square", "sharp_increase", "fluctuation", "sharp_decrease", "slight_increase", "slight_decrease"),
    DAY,
)
COURSE = [(0.0, 0.25), (0.2, 0.05), (0.37, 0.8), (0.5, 0.65), (0.8, 1.0), (0.95, 0.4), (1.0, 0.25)]
"""Shares of a day, and how high the load is then."""
BALANCING = ("two_choices", "round_robin", "random")
"""What the recorded clusters do, in turn."""
OTHER_SEED = 7001
"""Random streams of what happens again."""
SIGMA = 0.3
"""Spread of the recorded cluster's demands and numbers of calls around those that a replay starts from."""

SECONDS = 60.0 * FEWEST_MINUTES, 31 * 86400.0
"""A run lasts so long at least, for the demands to be fitted to it, and a month at most."""
SEED = 2**32 - 1
"""The largest seed."""
COST_PERCENT, MINUTES_POINTS = 3.0, 1.0
"""So close is what is asked for."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.shadow_judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="config/demo.yaml", help="settings (default: %(default)s)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    parser.add_argument("--acting", default="hpa_70", help="who is in charge (default: %(default)s)")
    parser.add_argument("--policy", default="plan_bootstrap", help="who is in the shadow")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1000, 1010)))
    parser.add_argument(
        "--seconds", type=positive, default=4800.0, help="length of a run (default: %(default)s)"
    )
    parser.add_argument("--replays", type=int, default=len(SEEDS), help="replays of each kind; 0: none")
    parser.add_argument(
        "--again",
        type=int,
        default=0,
        metavar="N",
        help="let it happen so often again, with other random streams: by so much single runs differ",
    )
    parser.add_argument("--load", choices=SHAPES, help="of all runs (default: another one per seed)")
    parser.add_argument("--output", metavar="JSON", help="also keep what was measured, run by run")
    parser.add_argument("--report", metavar="HTML", help="also write the page of the last run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per seed: what was foretold, what happened, and the errors."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    logging.getLogger().setLevel(logging.ERROR)
    try:
        check(arguments)
    except SettingsError as error:
        print(f"shadow_judge: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.acting} in charge, {arguments.policy} in the shadow; minutes are violating minutes")
    judged = []
    try:
        for seed in arguments.seeds:
            settings = load_settings(arguments.config, arguments.overrides)
            settings = other_cluster(settings, seed, arguments.seconds, arguments.load)
            judged.append(judge(settings, arguments, seed))
            print(", ".join(f"{head} {cell}" for head, cell in row(judged[-1]).items()), flush=True)
            if arguments.output:
                write_json(arguments.output, {"runs": [one.kept() for one in judged]})
            if arguments.report:
                write_counterfactual(Path(arguments.report), judged[-1].found, shlex.join(command(argv)))
    except DeepScalerError as error:
        print(f"shadow_judge: {error}", file=sys.stderr)
        return 1
    rows = [row(one) for one in judged]
    print()
    print(
        "\n".join(
            aligned([list(rows[0]), *(list(cells.values()) for cells in rows)], numbers=True, rule=True)
        )
    )
    print(f"\n{counted(judged)}")
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse what can't end well before anything is played.

    Raises:
        SettingsError: a policy is told the future, or a number is out of its bounds.
    """
    for flag in ("acting", "policy"):
        name = getattr(arguments, flag)
        if PolicyName.parse(name).family in TOLD:
            raise SettingsError(
                f"--{flag} {name}: it is told the future, which nobody is told here; take a policy that goes "
                "by the metrics, such as plan_bootstrap"
            )
    bounds = {"seeds": (0, SEED), "seconds": SECONDS, "replays": (0, len(SEEDS)), "again": (0, 1000)}
    why = {"seconds": "; the demands are fitted to the run, and that takes an hour at least"}
    for flag, (least, most) in bounds.items():
        given = getattr(arguments, flag)
        for value in given if isinstance(given, list) else [given]:
            if not least <= value <= most:
                raise SettingsError(
                    f"--{flag} {value}: expected {least:.0f} to {most:.0f}{why.get(flag, '')}"
                )


def command(argv: Sequence[str] | None) -> list[str]:
    """The command that makes the same."""
    return ["python", "-m", "testbed.experiments.shadow_judge", *(sys.argv[1:] if argv is None else argv)]


def other_cluster(settings: Settings, seed: int, seconds: float, shape: str | None = None) -> Settings:
    """A cluster whose demands, numbers of calls and balancing a replay doesn't know; the seed draws them."""
    place = seed % 1000
    shape = shape or SHAPES[place % len(SHAPES)]
    change: dict[str, Any] = {"shape": shape}
    if shape == DAY:
        change = {"shape": "course", "course": [(seconds * share, level) for share, level in COURSE]}
    update: dict[str, Any] = {
        "load": settings.testbed.load.model_copy(update=change),
        "duration": seconds,
        "history": 0.0,
        "demand_sigma": SIGMA,
        "demand_seed": place + 1,
        "balancing": BALANCING[place % len(BALANCING)],
    }
    return settings.model_copy(update={"testbed": settings.testbed.model_copy(update=update)})


@dataclass(frozen=True, eq=False)
class Judged:
    """What was foretold for one seed, and what happened.

    Attributes:
        run: load and seed.
        found: what was foretold.
        replays: from which; None without.
        real: measures of the run in which the shadow was in charge.
        again: those of further runs with the same users and other random streams.
    """

    run: str
    found: Counterfactual
    replays: Replayed | None
    real: Mapping[str, Any]
    again: Sequence[Mapping[str, Any]] = ()

    def kept(self) -> dict[str, Any]:
        """What is kept of it as JSON."""
        told = {"run": self.run, "happened": _kept(self.real), **to_dict(self.found)}
        told["happened_again"] = [_kept(one) for one in self.again]
        if self.replays is not None:
            told |= {
                "balancing": self.replays.balancing,
                "replays_was": [_kept(one) for one in self.replays.was],
                "replays_would": [_kept(one) for one in self.replays.would],
            }
        return told


def _kept(measures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: measures[name] for name in ("core_hours", "violation_minutes", "minutes")}


def judge(settings: Settings, arguments: argparse.Namespace, seed: int) -> Judged:
    """Let one be in charge and the other in its shadow, tell what would have been, and let it happen."""
    warmup, policy = settings.evaluate.warmup, arguments.policy
    run = shadow_run(settings, arguments.acting, policy, seed)
    found, replays = foretold(run, settings, policy, arguments.replays)  # first: a fit may lack minutes
    real = evaluate_run(shadow_run(settings, policy, None, seed), warmup)
    again = [evaluate_run(one, warmup) for one in other_runs(settings, policy, seed, arguments.again)]
    shape = arguments.load or SHAPES[seed % 1000 % len(SHAPES)]
    return Judged(f"{shape} {seed}", found, replays, real, again)


def other_runs(settings: Settings, policy: str, seed: int, count: int) -> Iterator[Run]:
    """Runs on the load of `seed` in which all that is random differs from run to run."""
    program = make_program(settings)
    plan = make_plan(settings, program, seed)
    for number in range(count):
        other = OTHER_SEED + number
        cluster = VirtualCluster(settings, seed=other, plan=plan, program=program)
        yield follow(cluster, settings, policy, None, other, settings.testbed.duration)


def foretold(
    run: Run, settings: Settings, policy: str, replays: int
) -> tuple[Counterfactual, Replayed | None]:
    """What a shadow run foretells, with so many replays of each kind.

    Raises:
        DataError: the demands can't be fitted to the run.
    """
    warmup = settings.evaluate.warmup
    try:
        model = fitted_to(run, settings, load_demand(settings))
    except DataError as error:
        why, advice, _ = str(error).partition("; collect longer")
        longer = "; let the run last longer (--seconds), or under less load" if advice else ""
        raise DataError(f"seed {run.info['seed']}: {why}{longer}") from error
    found = counterfactual(run, warmup, model)
    if not replays:
        return found, None
    made = replay(run, settings, model, policy, warmup, SEEDS[:replays])
    return replace(found, replay=replayed(found.was, made.was, made.would)), made


def row(judged: Judged) -> dict[str, str]:
    """Heading -> cell of one seed; errors of the cost in percent, of minutes in points of all minutes."""
    found, real = judged.found, judged.real
    cells = {
        "run": judged.run,
        "was": f"{found.was['core_hours']:.2f} / {found.was['violation_minutes']}",
        "happened": f"{real['core_hours']:.2f} / {real['violation_minutes']}",
        "as decided %": f"{_cost(found.decided_core_hours, real):+.1f}",
    }
    by, fit = found.replay, found.response
    if by is not None:
        hours, minutes = by.core_hours, by.minutes
        cells |= {
            "was, replayed": f"{by.was_core_hours:.2f} / {by.was_minutes:.1f}",
            "by replay": f"{hours.value:.2f} / {minutes.value:.1f}",
            "between": f"{hours.low:.2f}-{hours.high:.2f} / {minutes.low:.0f}-{minutes.high:.0f}",
            "cost %": f"{_cost(hours.value, real):+.1f}",
            "points": f"{_points(minutes, real):+.1f}",
        }
    if judged.again:
        cells["happened again"] = (
            f"{_range(judged, 'core_hours', 2)} / {_range(judged, 'violation_minutes', 0)}"
        )
    cells["was, by fit"] = "-" if fit is None else f"{fit.was.value:.1f}"
    cells["by fit"] = "-" if fit is None else f"{fit.would.value:.1f}"
    cells["points by fit"] = "-" if fit is None else f"{_points(fit.would, real):+.1f}"
    return cells


def _range(judged: Judged, measure: str, digits: int) -> str:
    values = [float(one[measure]) for one in judged.again]
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


def counted(judged: Sequence[Judged]) -> str:
    """How many runs came as close as they should, and in how many the truth lies in the interval."""
    known = [(one.found.replay, one.real) for one in judged if one.found.replay is not None]
    near = sum(abs(_cost(by.core_hours.value, real)) <= COST_PERCENT for by, real in known)
    close = sum(abs(_points(by.minutes, real)) <= MINUTES_POINTS for by, real in known)
    hours = sum(by.core_hours.low <= real["core_hours"] <= by.core_hours.high for by, real in known)
    minutes = sum(by.minutes.low <= real["violation_minutes"] <= by.minutes.high for by, real in known)
    return (
        f"of {len(known)} runs: cost within {COST_PERCENT:g} %: {near}; violating minutes within "
        f"{MINUTES_POINTS:g} point: {close}; inside the interval: cost {hours}, violating minutes {minutes}"
    )


def _cost(hours: float, real: Mapping[str, Any]) -> float:
    return float(100 * (hours / real["core_hours"] - 1))


def _points(minutes: Estimate, real: Mapping[str, Any]) -> float:
    return float(100 * (minutes.value - real["violation_minutes"]) / real["minutes"])


if __name__ == "__main__":
    raise SystemExit(main())
