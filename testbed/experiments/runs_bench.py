"""How large is the directory of a day's run, and how long does it take to read a thousand runs of an hour?

python -m testbed.experiments.runs_bench

One run of each length is simulated and kept as experiments keep theirs; the thousand are copies of the hour.
They are read twice, as an experiment does: first from their tables, then from the measures kept beside them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from deepscaler.errors import DeepScalerError
from deepscaler.evaluation.measured import measured
from deepscaler.runs import PolicyName
from deepscaler.settings import PlanPrices, load_settings
from deepscaler.text import aligned
from testbed.experiments.flags import positive
from testbed.experiments.runs import Kept, run_one

MIB = 2**20
SEED = 1000
WARMUP = 300.0


def build_parser() -> argparse.ArgumentParser:
    """Flags of the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="config/boutique.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--policy", default="hpa_70", help="who decides (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=1000, help="runs that are read (default: %(default)s)")
    parser.add_argument("--hour", type=positive, default=3600.0, help="seconds of a run that is read")
    parser.add_argument("--day", type=positive, default=86400.0, help="seconds of the long run")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Simulate, copy, read, print a table."""
    arguments = build_parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as root:
            day, hour = (
                simulated(arguments, seconds, Path(root) / name)
                for name, seconds in (("day", arguments.day), ("hour", arguments.hour))
            )
            sizes = [size(place) / MIB for place in (day, hour)]
            places = copies(hour, Path(root) / "copies", arguments.runs)
            reads = [read_seconds(places), read_seconds(places)]
    except DeepScalerError as error:
        print(f"runs_bench: {error}", file=sys.stderr)
        return 1
    rows = [
        ["what", "value"],
        [f"run of {arguments.day / 3600:g} h, MiB", f"{sizes[0]:.2f}"],
        [f"run of {arguments.hour / 3600:g} h, MiB", f"{sizes[1]:.2f}"],
        [f"{len(places)} runs read from their tables, CPU s", f"{reads[0]:.1f}"],
        [f"{len(places)} runs read again, CPU s", f"{reads[1]:.1f}"],
    ]
    print("\n".join(aligned(rows, numbers=True, rule=True)))
    return 0


def simulated(arguments: argparse.Namespace, seconds: float, place: Path) -> Path:
    """The directory of one run, kept as an experiment keeps it."""
    own = [f"scale.run_dir={place}", f"scale.duration={seconds}", "scale.shapes=[]"]
    settings = load_settings(arguments.config, [*arguments.overrides, *own])
    return run_one(
        settings, arguments.policy, SEED, kept=Kept(PolicyName.parse(arguments.policy), compact=True)
    )


def size(place: Path) -> int:
    """Bytes of all files in a directory."""
    return sum(path.stat().st_size for path in place.iterdir())


def copies(run: Path, place: Path, count: int) -> list[Path]:
    """So many copies of a run directory."""
    return [Path(shutil.copytree(run, place / f"{run.name}-{number}")) for number in range(count)]


def read_seconds(places: Sequence[Path]) -> float:
    """Seconds of one core until the measures of all runs are there, whatever else the machine does."""
    began = time.process_time()
    for place in places:
        measured(place, WARMUP, PlanPrices(), keep=True)
    return time.process_time() - began


if __name__ == "__main__":
    raise SystemExit(main())
