"""How well are the calls found from metrics alone? The structural graph beside causal discovery.

python -m testbed.experiments.graph_recovery --page docs/graph.md

It collects a day of telemetry per application and seed, once, and lets each method read the training rows of
the same metrics. What was asked for lies beside them: another span needs another `--output`. The recorded
calls are used for judging only. The rivals read one metric; which one, and from which strength on a pair is
an edge, is chosen on the validation seed. Rivals whose library isn't there are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from deepscaler.artefacts import read_json, read_text, write_json, write_text
from deepscaler.calls import read_calls
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.graphs.recovery import call_count, recovered, threshold
from deepscaler.graphs.structural import FEWEST_ROWS, fit_structure
from deepscaler.logs import VARIABLE, start_logging
from deepscaler.panel import MetricPanel, read_panel
from deepscaler.statistics import t_interval
from deepscaler.text import put_blocks
from testbed.experiments.flags import positive
from testbed.experiments.graph_rivals import RIVALS, Method, absent, installed

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
ROOT = Path(__file__).parents[2]
COMMAND = "python -m testbed.experiments.graph_recovery"
KEPT = "graph_recovery.json"
"""The result, beside the data and beside the page."""
ASKED, FITS = "asked.json", "fits.json"
"""Beside the metrics of an application and seed: what was asked for, and what was fitted to them."""
OWN = "structural"
METRICS = {"res": True, "req": False}
"""What the rivals may read -> whether its cause is the callee.

A slow callee slows its caller down, while a busy caller keeps its callee busy.
"""
TRAINING_SHARE = 0.6
"""Of the rows: those that `data_process.py` fits the structural graph to."""
LONGEST_SECONDS = 300.0
"""Processor time after which a method is stopped, by default."""
MEASURES = {"f1": "F1", "shd": "SHD", "auprc": "AUPRC", "auroc": "AUROC", "seconds": "CPU s"}


@dataclass(frozen=True)
class Case:
    """An application to find the calls of.

    Attributes:
        overrides: `--set` options; `{seed}` stands for the seed.
    """

    title: str
    config: str
    overrides: tuple[str, ...] = ()


CASES = {
    "boutique": Case("Online Boutique", "config/boutique.yaml"),
    "synthetic_30": Case(
        "30 services", "config/studies/synthetic_30.yaml", ("testbed.application=synthetic:30:{seed}",)
    ),
    "train_ticket": Case("Train-Ticket", "config/train_ticket.yaml"),
}


def build_parser() -> argparse.ArgumentParser:
    """Flags of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="applications")
    parser.add_argument("--methods", nargs="*", choices=RIVALS, default=list(RIVALS), help="rivals")
    parser.add_argument("--validation", type=int, default=1, help="seed that settles metric and threshold")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[2000, 2001, 2002], help="seeds that are judged"
    )
    parser.add_argument("--last", default="24h", help="telemetry per seed (default: %(default)s)")
    parser.add_argument(
        "--longest",
        type=positive,
        default=LONGEST_SECONDS,
        metavar="SECONDS",
        help="processor time after which a method is stopped (default: %(default)s)",
    )
    parser.add_argument("--output", default="runs/graph_recovery", help="default: %(default)s")
    parser.add_argument("--page", metavar="FILE", help=f"write the table there, and {KEPT} beside it")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Collect, fit, judge, print the table."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    output = Path(arguments.output)
    try:
        seeds = [arguments.validation, *arguments.seeds]
        jobs = [(name, seed) for seed in seeds for name in arguments.cases]
        for name, seed in tqdm(jobs, desc="collect", unit="span", disable=None, leave=False):
            collect(CASES[name], seed, arguments.last, _place(output, name, seed))
        methods = {name: one for name, one in installed().items() if name in arguments.methods}
        longest = arguments.longest
        choices = choose(
            [
                fitted(_place(output, name, arguments.validation), methods, longest=longest)
                for name in tqdm(arguments.cases, desc="validation", unit="graph", disable=None, leave=False)
            ]
        )
        cases = {
            name: [
                measured(fitted(_place(output, name, seed), methods, choices, longest), choices)
                for seed in tqdm(arguments.seeds, desc=name, unit="graph", disable=None, leave=False)
            ]
            for name in arguments.cases
        }
        if not choices:
            raise DataError(
                f"{output}: no method found a call in the telemetry of {arguments.last}, so no page is "
                "written; collect more, a day say: --last 24h with another --output"
            )
        result = {"seeds": arguments.seeds, "thresholds": choices, "cases": cases}
        write_json(output / KEPT, result)
        if arguments.page:
            page = Path(arguments.page)
            write_json(page.with_name(KEPT), result)
            write_text(page, put_blocks(read_text(page), {"recovery": table(result)}, COMMAND))
    except DeepScalerError as error:
        print(f"graph_recovery: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if absent():
        print(f"left out: {', '.join(absent())}; pip install -r requirements-graphs.txt", file=sys.stderr)
    return 0


def _place(output: Path, name: str, seed: int) -> Path:
    return output / f"{name}-{seed}"


# --------------------------------------------------------------------------------------------------- fitting
def collect(case: Case, seed: int, last: str, place: Path) -> None:
    """Emulate a span of the application under its exploring policy, unless its metrics are there.

    Raises:
        DataError: it failed, and the message is the last line that it printed; or the metrics that are there
            are those of another span or of other settings.
    """
    asked = {
        "config": case.config,
        "last": last,
        "set": [text.format(seed=seed) for text in (f"testbed.seed={seed}", *case.overrides)],
    }
    if (place / "metrics.csv").is_file():
        return _compare(place, asked)
    write_json(place / ASKED, asked)  # first: metrics never lie there without it
    given = [f"testbed.seed={seed}", f"collect.output_dir={place}", *case.overrides]
    options = [word for text in given for word in ("--set", text.format(seed=seed))]
    command = [sys.executable, str(ROOT / "metrics_fetch.py"), "--config", case.config, "--last", last]
    quiet = {**os.environ, VARIABLE: "ERROR"}
    done = subprocess.run([*command, *options], check=False, env=quiet, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{place}: {(done.stderr.strip().splitlines() or ['metrics_fetch failed'])[-1]}")


def _compare(place: Path, asked: Mapping[str, Any]) -> None:
    """See whether the metrics that lie there are those that are asked for; where no note tells, it is logged.

    Raises:
        DataError: they aren't.
    """
    if not (place / ASKED).is_file():
        log.warning("%s: no note says what was asked for; it is taken as it is", place / "metrics.csv")
        return
    remove = f"rm -r {shlex.quote(str(place))}"
    before = read_json(place / ASKED, f"collect again: {remove}")
    for key, value in asked.items():
        if before.get(key) != value:
            was, now = (_shown(key, one) for one in (before.get(key), value))
            raise DataError(
                f"{place / 'metrics.csv'}: collected with {was}, and now {now} is asked for; "
                f"take another --output, or collect again: {remove}"
            )


def _shown(key: str, value: Any) -> str:
    """An option as it is typed."""
    return " ".join(f"--{key} {one}" for one in (value if isinstance(value, list) else [value]))


def fitted(
    place: Path,
    methods: Mapping[str, Method],
    wanted: Collection[str] = (),
    longest: float = LONGEST_SECONDS,
) -> dict[str, Any]:
    """The recorded `calls` of a span of telemetry, and by reading the strengths that it found and its time.

    What was fitted to the same metrics earlier is kept in `fits.json` there. A reading that was stopped is
    tried again where it may now take longer.

    Args:
        place: with metrics.csv and calls.csv.
        methods: the rivals.
        wanted: names of readings (see `readers`); by default all.
        longest: seconds of processor time after which a reading is stopped.

    Raises:
        DataError: a file is missing or broken, or holds too few samples for any method.
    """
    panel = read_panel(place / "metrics.csv")
    if (rows := int(TRAINING_SHARE * len(panel))) < FEWEST_ROWS:
        raise DataError(
            f"{place / 'metrics.csv'}: {rows} training rows of {len(panel)} samples, at least {FEWEST_ROWS} "
            "are needed; collect more, a day say: --last 24h with another --output"
        )
    metrics = hashlib.sha256((place / "metrics.csv").read_bytes()).hexdigest()
    training = panel.between(panel.times[0], panel.times[rows - 1])
    kept = place / FITS
    earlier = read_json(kept, f"remove it: rm {shlex.quote(str(kept))}") if kept.is_file() else {}
    if earlier.get("metrics") != metrics:
        earlier = {}
    fits: dict[str, Any] = {"calls": read_calls(place / "calls.csv").mean_rates(panel.services)}
    for name, read in readers(training, methods).items():
        if _whole(earlier.get(name), len(panel.services), longest):
            fits[name] = earlier[name]
        elif not wanted or name in wanted:
            fits[name] = timed(read, longest)
            write_json(kept, {**earlier, **fits, "metrics": metrics})
    return fits


def _whole(fit: Any, count: int, longest: float) -> bool:
    """Whether that is what `timed` gave for so many services, given as much time."""
    if not isinstance(fit, Mapping) or not isinstance(fit.get("seconds"), float | int):
        return False
    try:
        if (strengths := fit["strengths"]) is None:
            return bool(fit["longest"] >= longest)
        return np.asarray(strengths, np.float64).shape == (count, count)
    except (KeyError, TypeError, ValueError):
        return False


def readers(panel: MetricPanel, methods: Mapping[str, Method]) -> dict[str, Callable[[], Array]]:
    """What finds the calls (row = caller): `structural`, and `<rival> by <metric>` for each of them."""
    found: dict[str, Callable[[], Array]] = {OWN: lambda: fit_structure(panel).likelihood.astype(np.float64)}
    for name, method in methods.items():
        for metric, reverse in METRICS.items():
            found[f"{name} by {metric}"] = _reader(method, panel, metric, reverse)
    return found


def _reader(method: Method, panel: MetricPanel, metric: str, reverse: bool) -> Callable[[], Array]:
    def read() -> Array:
        strengths = method(standard(panel.feature(metric).astype(np.float64)))
        return strengths.T if reverse else strengths

    return read


def standard(series: Array) -> Array:
    """Series `[L, N]` with mean 0 and standard deviation 1; gaps are bridged, what never varies is 0."""
    filled = pd.DataFrame(series).interpolate(limit_direction="both").fillna(0.0).to_numpy(np.float64)
    spread = filled.std(axis=0)
    return np.asarray((filled - filled.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def timed(read: Callable[[], Array], longest: float = LONGEST_SECONDS) -> dict[str, Any]:
    """`strengths` and the `seconds` of processor time that it took, of at most `longest`.

    Strengths are None where there is no answer in time, or none at all.
    """
    began = time.process_time()
    previous = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, longest)
    try:
        with np.errstate(all="ignore"):  # of a few samples no strength is known
            strengths: Array | None = np.nan_to_num(read(), posinf=0.0, neginf=0.0)
    except (
        TimeoutError,
        ValueError,
        ArithmeticError,
        np.linalg.LinAlgError,
    ):  # series that say the same twice
        strengths = None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    return {"strengths": strengths, "seconds": time.process_time() - began, "longest": longest}


def _stop(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


# --------------------------------------------------------------------------------------------------- judging
def choose(validation: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Reading -> the strength from which on a pair is an edge; of each method the reading of the highest F1.

    Args:
        validation: what `fitted` gave for each application.
    """
    found: dict[str, float] = {}
    for method in dict.fromkeys(name.partition(" by ")[0] for name in validation[0] if name != "calls"):
        readings = [name for name in validation[0] if name.partition(" by ")[0] == method]
        tried = {reading: threshold([_pair(fit, reading) for fit in validation]) for reading in readings}
        answers = {reading: one for reading, one in tried.items() if one is not None}
        if answers:
            best = max(answers, key=lambda reading: answers[reading][1])
            found[best] = answers[best][0]
    return found


def measured(fit: Mapping[str, Any], choices: Mapping[str, float]) -> dict[str, Any]:
    """The number of calls, and by reading the measures of its graph."""
    readings = {name: judged(fit, name, at) for name, at in choices.items()}
    return {"calls": call_count(np.asarray(fit["calls"])), "readings": readings}


def judged(fit: Mapping[str, Any], reading: str, at: float) -> dict[str, float] | None:
    """The measures of one graph, and its time; None where the method had no answer."""
    pair = _pair(fit, reading)
    return None if pair is None else {**recovered(*pair, at), "seconds": float(fit[reading]["seconds"])}


def _pair(fit: Mapping[str, Any], reading: str) -> tuple[Array, Array] | None:
    """Strengths and calls; None without an answer."""
    strengths, calls = (fit[reading]["strengths"], fit["calls"])
    return None if strengths is None else (np.asarray(strengths, np.float64), np.asarray(calls, np.float64))


# ----------------------------------------------------------------------------------------------------- table
def table(result: Mapping[str, Any]) -> str:
    """A Markdown table: per application and method the means over the judged seeds, with 95 % t-intervals."""
    lines = [
        f"| application | method | edge from | {' | '.join(MEASURES.values())} |",
        f"|{'---|' * (len(MEASURES) + 3)}",
    ]
    for case, seeds in result["cases"].items():
        calls = sorted({seed["calls"] for seed in seeds})
        title = f"{CASES[case].title} ({'-'.join(map(str, (calls[0], calls[-1])[: len(calls)]))} calls)"
        for reading, at in result["thresholds"].items():
            cells = [_cell([seed["readings"][reading] for seed in seeds], measure) for measure in MEASURES]
            lines.append(f"| {title} | {reading} | {at:.2g} | {' | '.join(cells)} |")
            title = ""
    return "\n".join(lines)


def _cell(seeds: Sequence[Mapping[str, float] | None], measure: str) -> str:
    known = [one[measure] for one in seeds if one is not None]
    if not known:
        return "-"
    digits = {"shd": 0, "seconds": 1}.get(measure, 2)
    bounds = t_interval(known, least=0.0, most=1.0) if measure in ("f1", "auprc") else None
    text = f"{np.mean(known):.{digits}f}"
    return text if bounds is None else f"{text} [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"


if __name__ == "__main__":
    raise SystemExit(main())
