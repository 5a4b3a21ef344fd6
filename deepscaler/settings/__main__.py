"""Show settings and write what is made from them.

python -m deepscaler.settings --effective config/demo.yaml --set scale.period=30
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deepscaler.artefacts import write_text
from deepscaler.errors import DeepScalerError
from deepscaler.settings import describe


def build_parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m deepscaler.settings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--effective",
        metavar="FILE",
        help="print all settings that apply with FILE: its own, those it extends, and the defaults",
    )
    what.add_argument(
        "--schema",
        nargs="?",
        const="config",
        metavar="DIRECTORY",
        help="write the JSON schemas that editors read (default: %(const)s/*.schema.json)",
    )
    what.add_argument(
        "--docs",
        nargs="?",
        const="docs/settings.md",
        metavar="FILE",
        help="write the page that explains every key (default: %(const)s)",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="with --effective: override one setting",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print or write what is asked for; 1 where a settings file is wrong."""
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.effective:
            sys.stdout.write(describe.effective(arguments.effective, arguments.overrides))
        elif arguments.schema:
            for path in describe.write_schemas(Path(arguments.schema)):
                print(path)
        else:
            write_text(arguments.docs, describe.docs())
            print(arguments.docs)
    except DeepScalerError as error:
        print(f"settings: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
