"""Whether the controller's memory stays flat over a virtual day: what its own code holds after each hour.

python -m testbed.experiments.memory_bench --hours 24

Everything that a live controller has is there: its files, its page, its metrics and what it remembers; a
browser asks for all of them once a minute. What the emulated cluster holds doesn't count.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deepscaler.control.controller import Controller
from deepscaler.control.keeping import Keeper
from deepscaler.control.memory import Memory
from deepscaler.control.recorder import Recorder
from deepscaler.control.serving import Routes
from deepscaler.control.tick import Tick
from deepscaler.control.watch import Watch
from deepscaler.errors import DeepScalerError
from deepscaler.settings import Settings, load_settings
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.flags import positive
from testbed.experiments.soak import POLICIES, make_policy

HOUR = 3600.0
FIRST_SECONDS = 600.0
"""What is held after so long is the base: all modules are loaded, and all that is made once is made."""
FRAMES = 6
"""So many callers of an allocation are looked at to see whose it is."""
ASKED = ("/", "/story.json", "/metrics")
EVERY_TICKS = 4
NAMED = 3
LOAD = ["testbed.load={shape: fluctuation, low: 2, high: 8}"]
"""A light load: what the controller holds doesn't depend on how many requests there are."""
ROOT = Path(__file__).parents[2]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.memory_bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="config/boutique.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--policy", choices=POLICIES, default=POLICIES[-1], help="default: %(default)s")
    parser.add_argument("--hours", type=positive, default=24.0, help="virtual hours (default: %(default)s)")
    parser.add_argument("--every", type=positive, default=1.0, help="hours between two looks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per look: what is held beyond the base, and where it grew most."""
    arguments = build_parser().parse_args(argv)
    logging.disable(logging.WARNING)
    try:
        duration = FIRST_SECONDS + HOUR * (arguments.hours + arguments.every)
        settings = load_settings(arguments.config, [*LOAD, f"testbed.duration={duration}"])
        for hours, held, grown in looks(settings, arguments.policy, arguments.hours, arguments.every):
            told = ", ".join(f"{place} {size / 1024:+.0f} KiB" for place, size in grown)
            print(f"{hours:5.2f} h: {held / 2**20:+.2f} MiB; {told}".rstrip("; "), flush=True)
    except DeepScalerError as error:
        print(f"memory_bench: {error}", file=sys.stderr)
        return 1
    finally:
        logging.disable(logging.NOTSET)
    return 0


def looks(
    settings: Settings, policy: str, hours: float, every: float
) -> Iterator[tuple[float, int, list[tuple[str, int]]]]:
    """After each stretch: hours, bytes beyond the base, and lines that hold more than at the last look."""
    with watched(settings, policy) as controller:
        controller.run(FIRST_SECONDS)
        tracemalloc.start(FRAMES)
        try:
            before, passed = Counter[str](), 0.0
            while passed < hours - 1e-9:
                controller.run(HOUR * every)
                passed += every
                now = _held()
                grown = Counter({place: size - before[place] for place, size in now.items()})
                most = [item for item in grown.most_common(NAMED) if item[1] >= 1024]
                yield passed, now.total(), most
                before = now
        finally:
            tracemalloc.stop()


@contextmanager
def watched(settings: Settings, policy: str) -> Iterator[Controller]:
    """A controller with all that belongs to a live one, and somebody who looks at its page."""
    cluster = VirtualCluster(settings, seed=settings.testbed.seed)
    with tempfile.TemporaryDirectory() as place:
        directory, decides = Path(place), make_policy(policy, settings)
        controller = Controller(cluster, decides, settings, Recorder(directory))
        controller.watch_health()
        controller.watchers.append(Memory(directory, lambda: decides, cluster))
        controller.watchers.append(Keeper(directory, cluster, settings.collect.step, cluster.now()))
        answer, ticks = Routes(Watch(controller, settings)), 0

        def look(_tick: Tick) -> None:
            nonlocal ticks
            ticks += 1
            for path in ASKED if ticks % EVERY_TICKS == 0 else ():
                answer(path)

        controller.watchers.append(look)
        yield controller


def _held() -> Counter[str]:
    """Place in the controller's code -> bytes that were allocated from there since the base and are held."""
    gc.collect()
    found = Counter[str]()
    for trace in tracemalloc.take_snapshot().traces:
        place = _place([(frame.filename, frame.lineno) for frame in trace.traceback])
        if place:
            found[place] += trace.size
    return found


def _place(frames: Sequence[tuple[str, int]]) -> str:
    """The innermost line of deepscaler/ or model/ among these (outermost first); "" if testbed/ is nearer."""
    for name, line in reversed(frames):
        path = Path(name)
        inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        if inside.parts[0] == "testbed":
            return ""
        if inside.parts[0] in ("deepscaler", "model"):
            return f"{inside}:{line}"
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
