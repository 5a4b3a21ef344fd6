"""Compare graphs between services: the recorded calls, priors and what training learned; table and picture.

python similarity.py --config config/boutique.yaml
python similarity.py --changes --graphs calls-1.csv calls-2.csv structural-1.csv structural-2.csv: does the second pair follow the first?
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

from deepscaler.artefacts import plain, write_json
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.graphs.priors import read_graph
from deepscaler.graphs.similarity import Matrix, align, edges_above_share, moved, similarity
from deepscaler.logs import start_logging
from deepscaler.pictures.graphs import draw_graphs
from deepscaler.settings import Settings, load_settings

log = logging.getLogger("similarity")
COLUMNS = {
    "weighted_jaccard": "weighted Jaccard",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "spectral": "spectral",
    "published_shared_edge_ratio": "published",
}
NOTES = """weighted Jaccard: sum of minima / sum of maxima over all pairs, each graph scaled to its largest weight.
precision, recall, F1: the second graph's heaviest edges, as many as the first has, against the first's.
spectral: eigenvalues of the normalised Laplacians; the shape without the names.
published (published_shared_edge_ratio): over shared edges only. It ignores every edge that only one graph has: a graph of one edge can
score 1."""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the graph comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="config/boutique.yaml", help="application settings (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting",
    )
    parser.add_argument(
        "--graphs", nargs="+", metavar="CSV", help="graphs to compare; the first is the reference"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names of the graphs, in the order of --graphs"
    )
    parser.add_argument("--common", action="store_true", help="compare the services that all graphs have")
    parser.add_argument(
        "--changes",
        action="store_true",
        help="graphs are pairs, before and after: do the later pairs follow the first?",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where similarity.json and similarity.png go (default: evaluate.output_dir)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read graphs, print their similarities, write similarity.json and similarity.png."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        settings = load_settings(arguments.config, arguments.overrides)
        log.info("settings: %s", settings.evaluate.model_dump_json())
        output, threshold = (
            Path(arguments.output or settings.evaluate.output_dir),
            settings.evaluate.edge_threshold,
        )
        paths = [Path(text) for text in arguments.graphs or settings.evaluate.graphs] or default_graphs(
            settings, arguments.config
        )
        services, graphs = align(
            dict(zip(graph_names(paths, arguments.names), map(read_graph, paths), strict=True)),
            arguments.common,
        )
        result: dict[str, Any] = {
            "services": services,
            "graphs": {
                name: {"file": str(path), "edges": edges_above_share(graphs[name], threshold).sum()}
                for name, path in zip(graphs, paths, strict=True)
            },
            "pairs": [
                {"first": a, "second": b, **similarity(graphs[a], graphs[b], threshold)}
                for a, b in combinations(graphs, 2)
            ],
        }
        if arguments.changes:
            result["changes"] = changes(graphs)
        write_json(output / "similarity.json", result)
        entries = list(dict.fromkeys(entry.service for entry in settings.app.entries))
        draw_graphs(services, graphs, entries, threshold, output / "similarity.png")
    except DeepScalerError as error:
        print(f"similarity: {error}", file=sys.stderr)
        return 1
    text = changes_text(result["changes"]) if arguments.changes else f"{table(result)}\n\n{NOTES}"
    print(json.dumps(plain(result), indent=2) if arguments.json else text)
    log.info("wrote %s and similarity.png", output / "similarity.json")
    return 0


def changes(graphs: dict[str, Matrix]) -> list[dict[str, Any]]:
    """How each later pair (before, after) moved where the first pair did.

    Raises:
        DataError: an odd number of graphs, or one pair alone.
    """
    names = list(graphs)
    if len(names) < 4 or len(names) % 2:
        raise DataError(f"--changes needs two or more pairs of graphs, found {len(names)} graph(s)")
    first = (graphs[names[0]], graphs[names[1]])
    return [
        {"reference": names[:2], "pair": [one, two], **moved(first, (graphs[one], graphs[two]))}
        for one, two in zip(names[2::2], names[3::2], strict=True)
    ]


def changes_text(found: list[dict[str, Any]]) -> str:
    """A line a pair."""
    return "\n".join(
        f"{' -> '.join(made['pair'])}: rank correlation with the changes of {' -> '.join(made['reference'])} "
        f"{made['correlation']:+.2f} over {made['pairs']:.0f} pairs; "
        f"{made['right_way']:.0%} of the {made['large']:.0f} large ones in the right direction"
        for made in found
    )


def default_graphs(settings: Settings, config: str) -> list[Path]:
    """The recorded call graph, what telemetry says, and what was learned from od and from cc; where these aren't there, what is.

    Raises:
        DataError: fewer than two graphs are there.
    """
    data, states = Path(settings.process.output_dir) / "graphs", Path(settings.scale.bundle).parent
    learned = sorted(states.glob("*.affinity.csv"))
    by_prior = {
        prior: [path for path in learned if prior in re.split(r"[-_.]", path.name)] for prior in ("od", "cc")
    }
    absent = [prior for prior, paths in by_prior.items() if not paths]
    for prior in absent:
        log.warning(
            "no bundle learned from %s in %s; train one with: %s",
            prior,
            states,
            train_command(settings, config, prior),
        )
    calls = data / ("call.csv" if (data / "call.csv").is_file() else "calls.csv")
    known = [calls, data / "structural.csv"]
    chosen = [*known, *by_prior["od"], *by_prior["cc"]]
    if absent:
        chosen = [*known, *(data / f"{prior}.csv" for prior in absent), *learned]
    found = [path for path in dict.fromkeys(chosen) if path.is_file()]
    if len(found) < 2:
        listed = f"found {found[0]} only" if found else "found none"
        raise DataError(
            f"two graphs are needed in {data} and {states}, {listed}; make them with: python data_process.py --config {config}"
        )
    return found


def train_command(settings: Settings, config: str, prior: str) -> str:
    """The two commands that learn a graph from this prior."""
    data = f"{settings.process.output_dir}-{prior}"
    process = f"python data_process.py --config {config} --set 'process.priors=[{prior}]' --set process.output_dir={data}"
    return f"{process} && python main.py --data_dir {data} --model_save_path {Path(settings.scale.bundle).parent}/AdapGLA-{prior}.pt"


def graph_names(paths: list[Path], names: list[str] | None) -> list[str]:
    """Names as given, else the files' (`call`, `AdapGLA-od`), with the directory before it where two are equal."""
    if names is not None and len(names) != len(paths):
        raise DataError(f"--names gives {len(names)} name(s) for {len(paths)} graph(s)")
    short = names or [path.name.removesuffix(".csv").removesuffix(".affinity") for path in paths]
    if names is None and len(set(short)) < len(short):
        short = [f"{path.parent.name}/{name}" for path, name in zip(paths, short, strict=True)]
    if len(set(short)) < len(short) or len(short) < 2:
        raise DataError(
            f"at least two graphs with different names are needed, found {', '.join(short)}; give --graphs and --names"
        )
    return short


def table(result: dict[str, Any]) -> str:
    """A row a pair of graphs."""
    rows = [["first", "second", "edges", *COLUMNS.values()]]
    for pair in result["pairs"]:
        rows.append(
            [
                pair["first"],
                pair["second"],
                str(pair["edges"]),
                *(f"{pair[column]:.3f}" for column in COLUMNS),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    raise SystemExit(main())
