"""Compare graphs between services: the recorded calls, priors and what training learned; table and picture.

python similarity.py --config config/boutique.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from deepscaler.artefacts import plain, write_json
from deepscaler.errors import DeepScalerError
from deepscaler.graphs.choice import default_graphs, graph_names
from deepscaler.graphs.comparison import changes_text, compare_pairs, follow_changes, pairs_table
from deepscaler.graphs.priors import read_graph
from deepscaler.graphs.similarity import align, edges_above_share
from deepscaler.logs import start_logging
from deepscaler.pictures.graphs import draw_graphs
from deepscaler.settings import load_settings
from deepscaler.settings.advice import follow

log = logging.getLogger("similarity")


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
        "--graphs",
        nargs="+",
        metavar="CSV",
        help="graphs to compare, the reference first (default: evaluate.graphs, else what the stages made)",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names of the graphs, in the order of --graphs"
    )
    parser.add_argument(
        "--common", action="store_true", help="compare only the services that all graphs have"
    )
    parser.add_argument(
        "--changes",
        action="store_true",
        help="graphs are pairs, before and after a change; tell whether later pairs follow the first",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where similarity.json and similarity.png go (default: evaluate.output_dir)",
    )
    parser.add_argument("--json", action="store_true", help="print similarity.json instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read graphs, print their similarities, write similarity.json and similarity.png."""
    arguments = build_parser().parse_args(argv)
    follow(arguments.config, arguments.overrides)
    start_logging()
    try:
        settings = load_settings(arguments.config, arguments.overrides)
        log.info("settings: %s", settings.evaluate.model_dump_json())
        threshold = settings.evaluate.edge_threshold
        output = Path(arguments.output or settings.evaluate.output_dir)
        given = [Path(text) for text in arguments.graphs or settings.evaluate.graphs]
        paths = given or default_graphs(settings, arguments.config)
        read = zip(graph_names(paths, arguments.names), map(read_graph, paths), strict=True)
        services, graphs = align(dict(read), arguments.common)
        result: dict[str, Any] = {
            "services": services,
            "graphs": {
                name: {"file": str(path), "edges": edges_above_share(graphs[name], threshold).sum()}
                for name, path in zip(graphs, paths, strict=True)
            },
            "pairs": compare_pairs(graphs, threshold),
        }
        if arguments.changes:
            result["changes"] = follow_changes(graphs)
        write_json(output / "similarity.json", result)
        entries = list(dict.fromkeys(entry.service for entry in settings.app.entries))
        draw_graphs(services, graphs, entries, threshold, output / "similarity.png")
    except DeepScalerError as error:
        print(f"similarity: {error}", file=sys.stderr)
        return 1
    text = changes_text(result["changes"]) if arguments.changes else pairs_table(result["pairs"])
    print(json.dumps(plain(result), indent=2) if arguments.json else text)
    log.info("wrote %s and similarity.png", output / "similarity.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
