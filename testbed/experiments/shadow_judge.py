"""How far a shadow run foretells what happens when the policy is in charge, on runs where that is known.

python -m testbed.experiments.shadow_judge --config config/demo.yaml --policy plan_bootstrap
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deepscaler.errors import DataError, DeepScalerError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.labels.record import fitted_to
from deepscaler.learning.description import load_demand
from deepscaler.logs import start_logging
from deepscaler.reports.counterfactual import Counterfactual, counterfactual, replayed
from deepscaler.reports.decided import Estimate
from deepscaler.settings import Settings, load_settings
from deepscaler.text import aligned
from testbed.experiments.replay import SEEDS, replay
from testbed.experiments.shadow import shadow_run

SHAPES = ("square", "sharp_increase", "fluctuation", "sharp_decrease", "slight_increase", "slight_decrease")
BALANCING = ("two_choices", "round_robin", "random")
"""What the recorded cluster does; a replay assumes `least_request`."""
SIGMA = 0.3
"""Spread of the recorded cluster's demands and numbers of calls around those that a replay starts from."""


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
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1000, 1006)))
    parser.add_argument(
        "--seconds", type=float, default=5400.0, help="length of a run (default: %(default)s)"
    )
    parser.add_argument("--replays", type=int, default=len(SEEDS), help="replays of each kind; 0: none")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per seed: what was foretold, what happened, and the errors."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    logging.getLogger().setLevel(logging.ERROR)
    print(f"{arguments.acting} in charge, {arguments.policy} in the shadow; minutes are violating minutes")
    rows = []
    try:
        for place, seed in enumerate(arguments.seeds):
            settings = _other_cluster(
                load_settings(arguments.config, arguments.overrides), place, arguments.seconds
            )
            rows.append(judge(settings, arguments, seed))
            print(", ".join(f"{head} {cell}" for head, cell in rows[-1].items()), flush=True)
    except DeepScalerError as error:
        print(f"shadow_judge: {error}", file=sys.stderr)
        return 1
    print()
    print("\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)], numbers=True, rule=True)))
    return 0


def _other_cluster(settings: Settings, place: int, seconds: float) -> Settings:
    """A cluster whose demands, numbers of calls and balancing a replay doesn't know."""
    load = settings.testbed.load.model_copy(update={"shape": SHAPES[place % len(SHAPES)]})
    update: dict[str, Any] = {
        "load": load,
        "duration": seconds,
        "history": 0.0,
        "demand_sigma": SIGMA,
        "demand_seed": place + 1,
        "balancing": BALANCING[place % len(BALANCING)],
    }
    return settings.model_copy(update={"testbed": settings.testbed.model_copy(update=update)})


def judge(settings: Settings, arguments: argparse.Namespace, seed: int) -> dict[str, str]:
    """Heading -> cell of one seed."""
    warmup, policy = settings.evaluate.warmup, arguments.policy
    run = shadow_run(settings, arguments.acting, policy, seed)
    real = evaluate_run(shadow_run(settings, policy, None, seed), warmup)
    try:
        model = fitted_to(run, settings, load_demand(settings))
    except DataError as error:
        raise DataError(f"seed {seed}: {error}") from error
    found = counterfactual(run, warmup, model)
    if arguments.replays:
        replays = replay(run, settings, model, policy, warmup, SEEDS[: arguments.replays])
        found = replace(found, replay=replayed(found.was, replays.was, replays.would))
    return {"run": f"{settings.testbed.load.shape} {seed}", **row(found, real)}


def row(found: Counterfactual, real: Mapping[str, Any]) -> dict[str, str]:
    """The cells of one seed; errors of the cost in percent, of violating minutes in points of all minutes."""
    cells = {
        "was": f"{found.was['core_hours']:.2f} / {found.was['violation_minutes']}",
        "happened": f"{real['core_hours']:.2f} / {real['violation_minutes']}",
        "as decided": f"{found.decided_core_hours:.2f}",
        "cost %": _cost(found.decided_core_hours, real),
    }
    by, fit = found.replay, found.response
    if by is not None:
        cells |= {
            "was, replayed": f"{by.was_core_hours:.2f} / {by.was_minutes:.1f}",
            "by replay": f"{by.core_hours.value:.2f} / {by.minutes.value:.1f}",
            "its cost %": _cost(by.core_hours.value, real),
            "its points": _points(by.minutes, real),
        }
    cells["was, by fit"] = "-" if fit is None else f"{fit.was.value:.1f}"
    cells["by fit"] = "-" if fit is None else f"{fit.would.value:.1f}"
    cells["its points by fit"] = "-" if fit is None else _points(fit.would, real)
    return cells


def _cost(hours: float, real: Mapping[str, Any]) -> str:
    return f"{100 * (hours / real['core_hours'] - 1):+.1f}"


def _points(minutes: Estimate, real: Mapping[str, Any]) -> str:
    return f"{100 * (minutes.value - real['violation_minutes']) / real['minutes']:+.1f}"


if __name__ == "__main__":
    raise SystemExit(main())
