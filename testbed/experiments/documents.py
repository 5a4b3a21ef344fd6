"""Write measured numbers into README.md and docs/results.md, so that nobody types one.

python -m testbed.experiments.documents --summary runs/demo/summary.json
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscaler.artefacts import read_json, read_text, write_json, write_text
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.evaluation.text import OWN, TERMS, full_table, interval, main_table, number
from deepscaler.text import put_blocks
from testbed.experiments.kept_tables import (
    cost_said,
    expecting,
    networks_table,
    policies_said,
    policies_table,
    shown_policies,
    with_comparison,
)

KEPT = "docs/results.json"
"""What the pages are written from: the parts of summaries that they show, kept beside them."""
COMMAND = "make docs"
ROW = (
    *("policy", "family", "knob", "directory", "seeds", "violation_minutes", "violation_rate"),
    *("violation_rate_ci", "slow_rate", "p95_seconds", "mean_seconds", "core_hours", "core_hours_ci"),
    *("changes_per_hour", "starts_per_hour", "mean_replicas", "unknown_rate"),
)
COMPARE = "python main.py --model_name all"
LONG: Sequence[tuple[str, str, Callable[[Mapping[str, Any]], str]]] = (
    ("train ticket", "train_ticket", policies_table),
    ("train ticket, paired", "train_ticket", lambda kept: _filled(policies_said(kept))),
    ("networks", "networks", networks_table),
)
"""Blocks of docs/results.md whose runs take long: name, key of what is kept, text."""
PAIRED = ("violation_rate", "slow_rate", "core_hours")
WIDTH = 140
"""Columns of a line in the pages."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.documents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--summary", metavar="FILE", help=f"a newer summary.json (default: keep {KEPT})")
    parser.add_argument(
        "--train-ticket", metavar="FILE", help="a newer summary.json of the runs on Train-Ticket"
    )
    parser.add_argument(
        "--networks",
        action="append",
        type=column_of,
        default=[],
        metavar="COLUMN=FILE",
        help="a newer comparison.json of `main.py --model_name all` on a data set",
    )
    parser.add_argument("--root", default=".", metavar="DIR", help="where README.md lies")
    return parser


def column_of(text: str) -> tuple[str, str]:
    """Column and file of `COLUMN=FILE`.

    Raises:
        argparse.ArgumentTypeError: one of them is missing.
    """
    title, _, file = text.rpartition("=")
    if not (title.strip() and file):
        raise argparse.ArgumentTypeError(f"expected COLUMN=FILE (recording=comparison.json), found {text!r}")
    return title, file


def main(argv: Sequence[str] | None = None) -> int:
    """Keep what the pages show of the summary, and write the pages from it."""
    arguments = build_parser().parse_args(argv)
    root = Path(arguments.root)
    try:
        kept = renewed(root / KEPT, arguments)
        with expecting(root / KEPT, "numbers that the pages show", f"git checkout {KEPT}, or make demo docs"):
            written = documents(kept, root)
        if not (root / KEPT).is_file() or kept != read_json(root / KEPT, "make demo docs"):
            write_json(root / KEPT, kept)
        for name, text in written.items():
            write_text(root / name, text)
    except DeepScalerError as error:
        print(f"documents: {error}", file=sys.stderr)
        return 1
    print(f"written: {', '.join(written)}")
    return 0


def renewed(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What is kept, with what newer files say in its place.

    Raises:
        DataError: a file can't be read, or has nothing that the pages show.
    """
    kept = read_json(path, "make demo docs") if path.is_file() or not arguments.summary else {}
    if file := arguments.summary:
        summary = read_json(file, "make demo")
        with expecting(file, "summary of `make demo`", "make demo writes runs/demo/summary.json"):
            kept |= shown(summary)
            headline(kept)
    if file := arguments.train_ticket:
        summary = read_json(file, "python calculate.py")
        with expecting(file, "summary of runs with deepscaler", "docs/results.md has the commands"):
            kept["train_ticket"] = shown_policies(summary)
            policies_table(kept["train_ticket"])
            policies_said(kept["train_ticket"])
    for title, file in arguments.networks:
        if "networks" not in kept:
            raise DataError(f"{path}: no table of networks to put a column into; git checkout {KEPT}")
        comparison = read_json(file, COMPARE)
        with expecting(file, "comparison of networks", f"expected comparison.json of {COMPARE}"):
            kept["networks"] = with_comparison(kept["networks"], title, comparison)
            networks_table(kept["networks"])
    return kept


def shown(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The part of summary.json that the pages show."""
    return {
        "policies": {name: {key: row[key] for key in ROW} for name, row in summary["policies"].items()},
        "pareto": summary["pareto"],
        "baseline": summary["baseline"],
        "paired": {measure: summary["paired"][OWN][measure] for measure in PAIRED},
        "equal": summary["equal"][OWN],
        "stages": summary.get("stages", {}),
    }


def documents(kept: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Page -> its text with the numbers of `kept`.

    Raises:
        DataError: a page can't be read, or lacks a mark.
    """
    blocks = headline(kept)
    blocks["docs/results.md"] |= {name: made(kept[key]) for name, key, made in LONG if key in kept}
    return {name: put_blocks(read_text(root / name), parts, COMMAND) for name, parts in blocks.items()}


def headline(kept: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Page -> the blocks that say what `--summary` said."""
    return {
        "README.md": {"table": _fenced(main_table(kept)), "gains": gains(kept)},
        "docs/results.md": {"table": _fenced(full_table(kept)), "findings": findings(kept)},
    }


def _fenced(table: str) -> str:
    return f"```\n{table.removeprefix(TERMS).strip()}\n```"


# -------------------------------------------------------------------------------------------------- sentences
def gains(kept: Mapping[str, Any]) -> str:
    """The README's bullets: deepscaler against the HPA, and what the network adds."""
    own, plan, level, near = (
        kept["policies"][name] for name in (OWN, "plan_bootstrap", kept["baseline"], "hpa_40")
    )
    place = "[Online Boutique](docs/results.md#online-boutique)"
    return _bullets(
        f"**`{OWN}`** violates {_rate(own)} of the minutes at {own['core_hours']:.2f} core-hours. "
        f"{_against(level, own)}; {_against(near, own)} ({place}). "
        "It plans by cost over what a network foresees.",
        f"**What the network adds**: without it (`plan_bootstrap`) {_rate(plan)} violate at "
        f"{_cost(plan, own)}. It recalls what followed moments like this one in training: cheaper, all told, "
        "where loads move, hardly dearer where they don't ([docs/planning.md](docs/planning.md)).",
    )


def findings(kept: Mapping[str, Any]) -> str:
    """The bullets of docs/results.md below the table."""
    rows = kept["policies"]
    own, plan, floor = (rows[name] for name in (OWN, "plan_bootstrap", "reactive_holistic"))
    level, quantile, near = rows[kept["baseline"]], rows["deepscaler_quantile"], rows["hpa_40"]
    violations, slow = (kept["paired"][name] for name in ("violation_rate", "slow_rate"))
    return _bullets(
        "**DeepScaler** plans by cost over a network's scenarios and the live history "
        f"([planning.md](planning.md)). It violates {_rate(own)} "
        f"{interval(own['violation_rate_ci'], 2, 100)} of the minutes "
        f"at {own['core_hours']:.2f} core-hours. {_against(level, own)}, and "
        f"{_against(near, own)}. {_equal(own, kept['equal'].get('hpa'), rows)} "
        f"On the same {slow['pairs']} loads, against `{kept['baseline']}`: "
        f"{_difference(violations, 'violating minutes')}; "
        f"{_difference(slow, 'slow or failed requests')}.",
        "**What the network adds to the plan**: `plan_bootstrap`, which learns nothing, violates "
        f"{_rate(plan)} at {plan['core_hours']:.2f} core-hours, which is {_cost(plan, own)}. The network was "
        "trained on three days of a load that is made of such shapes, so it knows what follows what.",
        "**A forecast of replicas without a plan** (`deepscaler_quantile`, AdapGLA, the paper's network): "
        f"{_rate(quantile)} of the minutes, where the reactive floor alone has {_rate(floor)}, at "
        f"{_cost(quantile, floor)} than that.",
        "**Scaling all services at once** by what the entry's request rate needs of each, every 15 s and "
        "without the HPA's five-minute hold, is what the reactive floor does: "
        f"{_rate(floor)} of the minutes at {_cost(floor, level)} than `{kept['baseline']}`, which violates "
        f"{_rate(level)}. What it loses, it loses in the first minute of a step.",
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def _bullets(*texts: str) -> str:
    style: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent="* ", subsequent_indent="  ", **style) for text in texts
    )


def _rate(row: Mapping[str, Any]) -> str:
    return f"{number(row['violation_rate'], 2, 100)} %"


def _cost(row: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return f"{cost_said(row, other)} cost"


def _against(rival: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    return f"`{rival['policy']}` violates {_rate(rival)} at {_cost(rival, own)}"


def _equal(
    own: Mapping[str, Any], equal: Mapping[str, Any] | None, rows: Mapping[str, Mapping[str, Any]]
) -> str:
    """What the HPAs reach at the cost of deepscaler, and what they cost at its violations."""
    if equal is None:
        return ""
    violations, cost = equal["violation_rate_at_equal_cost"], equal["core_hours_at_equal_violations"]
    seen = {name: (row["violation_rate"], row["core_hours"]) for name, row in rows.items()}
    seen |= equal.get("points", {})  # on the seeds that all of these ran on; older summaries lack it
    low, cheap = (
        seen[own["policy"]][axis] < min(seen[name][axis] for name in equal["members"]) for axis in (0, 1)
    )
    at_cost = f"{number(violations, 2, 100)} % violate"
    if violations is None:  # then its cost lies outside those of the HPAs
        at_cost = f"no HPA here {'is as cheap' if cheap else 'costs as much'}"
    at_violations = f"it takes {number(cost, 2)} core-hours"
    if cost is None:
        at_violations = "no HPA here comes as low" if low else "each HPA here violates less"
    return f"Read between the HPAs, at equal cost {at_cost}; at equal violations {at_violations}."


def _difference(entry: Mapping[str, Any], what: str) -> str:
    bounds = interval(entry["mean_difference_ci"], 2, 100)
    return (
        f"{entry['mean_difference'] * 100:+.2f} points of {what} {bounds}, "
        f"p is {entry['p_holm']:.2g} after Holm's correction"
    )


if __name__ == "__main__":
    raise SystemExit(main())
