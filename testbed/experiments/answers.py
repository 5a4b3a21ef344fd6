"""What the experiments answered, as a page: docs/experiments.md, made of their summaries.

python -m testbed.experiments.answers runs/experiments/*/summary.json

What the page shows of each summary is kept in docs/experiments.json: the page can be made again without runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscaler.artefacts import read_json, write_json, write_text
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.evaluation.text import OWN, interval, number
from deepscaler.settings import Holds
from testbed.experiments.kept_tables import expecting
from testbed.experiments.tables import cheapest

KEPT, PAGE = "docs/experiments.json", "docs/experiments.md"
MAKE = "python -m testbed.experiments.answers"
EXPERIMENT = "python -m testbed.experiment config/experiments/<name>.yaml"
MEASURES = ("violation_rate", "core_hours", "realised_cost")
WIDE = 10
"""With more columns than that, policies are the lines of a table and cases its columns."""
ASKED_FOR = (OWN, "plan_bootstrap")
"""Whose difference to the baseline is told: the first of these that ran."""
LEFT_OUT = ("oracle",)
"""References that the page leaves out where `plan_foreseen` ran."""
HEAD = f"""\
# What the experiments answered

Written by `{MAKE}` from the summaries of the runs; nothing here is typed. Each cell reads
violating minutes in % @ core-hours (realised cost: core-hours held, and shortages and starts at their
prices), means over the seeds. Of a sweep, such as the HPA's targets, the setting with the lowest realised
cost stands, chosen case by case on these very seeds, which favours it. Differences are of the realised cost,
paired by seed, with Student's 95 % interval, bold where it excludes zero; older sections say so where theirs
are bootstrap intervals. Policies stand in [decisions.md](decisions.md), what is needed and the prices in
[planning.md](planning.md#what-the-plan-without-a-network-is-worth), loads and variants in the \
file that each section
names. Sections were run on different days of the code, and differ by up to 2 % where they ask the same.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=MAKE, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("summaries", nargs="*", metavar="FILE", help="newer summary.json of experiments")
    parser.add_argument("--root", default=".", metavar="DIR", help="where docs/ lies")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Keep what the page shows of the summaries, and write it."""
    arguments = build_parser().parse_args(argv)
    root = Path(arguments.root)
    try:
        path = root / KEPT
        kept = read_json(path, MAKE) if path.is_file() else {}
        kept |= _newer(arguments.summaries)
        for name, one in kept.items():
            with expecting(path, f"answer of the experiment {name!r}", f"{MAKE} <its summary.json>"):
                _section(name, one)
        write_json(path, dict(sorted(kept.items())))
        write_text(root / PAGE, page(kept))
    except DeepScalerError as error:
        print(f"answers: {error}", file=sys.stderr)
        return 1
    print(f"written: {PAGE}")
    return 0


def _newer(files: Sequence[str]) -> dict[str, Any]:
    """What the page shows of each of the summaries.

    Raises:
        DataError: one is no summary, or two are of one experiment.
    """
    found, places = dict[str, Any](), dict[str, str]()
    for file in files:
        summary = read_json(file, EXPERIMENT)
        with expecting(file, "summary of an experiment", f"expected summary.json of {EXPERIMENT}"):
            newer = shown(summary)
            page(newer)
        (name,) = newer
        other = places.setdefault(name, file)
        if other != file:
            raise DataError(
                f"{file}: of the experiment {name!r}, as {other} is, and the page has one section for each; "
                "give one of them, or run what other flags (--with, --set, --only) ask for from a file of "
                "its own name"
            )
        found |= newer
    return found


def shown(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an experiment's summary that the page shows, under the experiment's name."""
    about = summary["experiment"]
    settings = about["settings"]
    cases = {name: _case(case, settings) for name, case in summary["cases"].items()}
    found = {
        "question": about["question"],
        "seeds": about["seeds"],
        "columns": _columns(settings),
        "baseline": settings["baseline"],
        "cases": cases,
    }
    if settings.get("holds") is not None:
        found |= {"holds": settings["holds"], "cheapest": _promises(summary["cases"], settings["holds"])}
    return {str(about["name"]): found}


def _promises(cases: Mapping[str, Any], promise: Mapping[str, Any]) -> dict[str, Any]:
    """Case -> family -> the cheapest setting that keeps the promise, and its mean cores; None without."""
    holds, found = Holds.model_validate(promise), dict[str, Any]()
    for name, case in cases.items():
        families = dict.fromkeys(row["family"] for row in case["policies"].values())
        found[name] = {family: cheapest(case, family, holds) for family in families}
    return found


def _columns(settings: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys((*settings["policies"], *settings["sweeps"])))
    return [name for name in names if name not in LEFT_OUT or "plan_foreseen" not in names]


def _case(case: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Column -> the policy that stands in it, its measures, and how it differs from the baseline."""
    rows, found = case["policies"], dict[str, Any]()
    for column in _columns(settings):
        members = [column] if column in rows else [n for n, row in rows.items() if row["family"] == column]
        if members:
            best = min(members, key=lambda name: rows[name]["realised_cost"])
            found[column] = {"policy": best, **{name: rows[best][name] for name in MEASURES}}
    if case["paired"]:
        _tell_differences(found, case["paired"], rows[settings["baseline"]]["realised_cost"])
    return found


def _tell_differences(found: dict[str, Any], paired: Mapping[str, Any], base: float) -> None:
    """How each column differs from the baseline; `difference` is that of the one that is asked for."""
    for column in found.values():
        if column["policy"] in paired:
            column["difference"] = _against(paired[column["policy"]], base)
    asked = next((name for name in ASKED_FOR if name in paired), None)
    if asked is not None:
        found["difference"] = {"policy": asked, **_against(paired[asked], base)}


def _against(paired: Mapping[str, Any], base: float) -> dict[str, Any]:
    """By which share of the baseline's realised cost, on the same seeds, a policy differs from it."""
    entry = paired["realised_cost"]
    base = entry.get("baseline_mean", base)  # older summaries lack it
    bounds = entry["mean_difference_ci"]
    interval = None if bounds is None else [bound / base for bound in bounds]
    return {"share": entry["mean_difference"] / base, "ci": interval}


def page(kept: Mapping[str, Any]) -> str:
    """The whole page."""
    return "\n".join((HEAD, *(_section(name, one) for name, one in sorted(kept.items()))))


def _section(name: str, one: Mapping[str, Any]) -> str:
    cases = one["cases"]
    columns = [column for column in one["columns"] if any(column in case for case in cases.values())]
    if len(columns) > WIDE or one["baseline"] == OWN:  # then all others are compared with it
        return _headed(name, one, _lines_by_policy(columns, one))
    told = [case["difference"]["policy"] for case in cases.values() if "difference" in case]
    heads = ["", *columns, *((f"{told[0]} against {one['baseline']}",) if told else ())]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for title, case in cases.items():
        cells = [title, *(_cell(column, case.get(column)) for column in columns)]
        if told:
            cells.append(_difference(case.get("difference")))
        lines.append(_line(cells))
    return _headed(name, one, lines)


def _lines_by_policy(columns: Sequence[str], one: Mapping[str, Any]) -> list[str]:
    """Many policies: a line for each, with the difference from the baseline in each cell."""
    cases, baseline = one["cases"], one["baseline"]
    lines = [_line([f"against {baseline}", *cases]), "|" + "---|" * (1 + len(cases))]
    for column in columns:
        cells = [f"**{column}**" if column == baseline else column]
        for case in cases.values():
            row = case.get(column)
            difference = None if row is None else row.get("difference")
            cells.append(_cell(column, row) + ("" if difference is None else f"; {_difference(difference)}"))
        lines.append(_line(cells))
    return lines


def _kept_promises(one: Mapping[str, Any]) -> list[str]:
    """Which fewest cores keep the promise; nothing where none is asked for."""
    if "holds" not in one:
        return []
    families = list(dict.fromkeys(family for case in one["cheapest"].values() for family in case))
    heads = ["mean cores", *families]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for title, case in one["cheapest"].items():
        lines.append(_line([title, *(_kept(family, case.get(family)) for family in families)]))
    promise = f"`{one['holds']['measure']}` within {one['holds']['at_most']:g}"
    about = f"The fewest mean cores that keep {promise} in every run, and the setting that does:"
    return ["", about, "", *lines]


def _kept(family: str, best: Sequence[Any] | None) -> str:
    if best is None:
        return "N/A"
    return number(best[1], 2) if best[0] == family else f"{number(best[1], 2)} {best[0]}"


def _headed(name: str, one: Mapping[str, Any], lines: Sequence[str]) -> str:
    intervals = " Intervals: bootstrap, made as wide as Student's." if one.get("bootstrap") else ""
    seeds = f"{len(one['seeds'])} seeds from {min(one['seeds'])} on"
    return (
        f"## {name}\n\n{one['question']} `config/experiments/{name}.yaml`, {seeds}.{intervals}\n\n"
        + "\n".join([*lines, *_kept_promises(one)])
        + "\n"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: str, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    text = (
        f"{number(row['violation_rate'], 1, 100)} @ {number(row['core_hours'], 2)} "
        f"({number(row['realised_cost'], 2)})"
    )
    return text if row["policy"] == column else f"{text} {row['policy']}"


def _difference(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    bounds = entry["ci"]
    text = f"{100 * entry['share']:+.1f} % {interval(bounds, 1, 100)}"
    sure = bounds is not None and bounds[0] * bounds[1] > 0
    return f"**{text}**" if sure else text


if __name__ == "__main__":
    raise SystemExit(main())
