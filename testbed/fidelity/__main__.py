"""Compare the emulated Online Boutique with recordings of a real one.

python -m testbed.fidelity --data result.zip
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deepscaler.artefacts import read_text, write_text
from deepscaler.errors import DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.pictures.fidelity import draw_pods
from deepscaler.settings import Settings, load_settings
from deepscaler.text import put_blocks
from testbed.applications.loading import APPS, load_application
from testbed.applications.truth import endpoint_shares, expected_visits
from testbed.fidelity import report
from testbed.fidelity.fitting import Parameters
from testbed.fidelity.judging import judge
from testbed.fidelity.records import read_cells

COMMAND = "python -m testbed.fidelity"
"""What the marks in the page name."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m testbed.fidelity", description=__doc__)
    parser.add_argument("--data", required=True, help="ScalerEval's result.zip")
    parser.add_argument("--config", default="config/boutique_real.yaml", help="settings of the application")
    parser.add_argument("--page", help="write the tables into this page, and the picture beside it")
    parser.add_argument(
        "--write", action="store_true", help="write the parameters into the application's file"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes; 1 by default")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Judge each run by what was fitted on the others, and print the tables."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error(f"argument --workers: expected 1 or more, found {arguments.workers}")
    start_logging()
    try:
        settings = load_settings(arguments.config)
        cells = read_cells(arguments.data, tuple(settings.app.services), settings.app.entries[0].service)
        judged, found = judge(cells, settings, arguments.workers)
        blocks = tables(judged, found, settings)
        for text in blocks.values():
            print(text, end="\n\n")
        if arguments.write:
            base = APPS / f"{settings.testbed.application}.yaml"
            report.write_application(base, found.fields(load_application(base)))
        if arguments.page:
            page = Path(arguments.page)
            write_text(page, put_blocks(read_text(page), blocks, COMMAND))
            draw(judged, page.with_name("fidelity.png"))
    except DeepScalerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def tables(judged: Sequence[report.Judged], found: Parameters, settings: Settings) -> dict[str, str]:
    """The blocks of the page, by name."""
    application = load_application(settings.testbed.application)
    visits = endpoint_shares(application) @ expected_visits(application)
    told = dict(zip(application.service_names, (visits / visits[0]).tolist(), strict=True))
    return {
        "comparison": report.comparison(judged),
        "calls": report.calls(judged, told),
        "parameters": report.parameters(found, [one.parameters for one in judged]),
    }


def draw(judged: Sequence[report.Judged], path: Path) -> None:
    """Pods over time, real and emulated on one axis, a panel per run."""
    panels = {}
    for one in judged:
        lines = {"real": one.cell.record}
        lines["emulated, own policy" if one.own else "emulated, replayed"] = one.own or one.replayed
        panels[one.cell.policy] = {
            name: (record.seconds, record.pods.sum(axis=1), 1000 * record.quantiles[:, 2])
            for name, record in lines.items()
        }
    draw_pods(panels, path)


if __name__ == "__main__":
    sys.exit(main())
