"""The shared load shape: the number of Locust's users follows a trace (`.req`: one number per 5 s).

A locustfile imports `TraceShape` and calls `load_trace` when Locust starts. Options, on the command line or
in the environment: `--trace` SENDFLOW_TRACE, `--scale` SENDFLOW_SCALE, `--period` SENDFLOW_PERIOD, `--loop`
SENDFLOW_LOOP, `--idle-steps` SENDFLOW_IDLE_STEPS.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from deepscaler.errors import DeepScalerError
from sendFlow.flags import number, whole
from sendFlow.trace import IDLE_STEPS, MOST_USERS, README_TRACE, Series, read_trace, users_at

MAX_SPAWN_RATE = 100
"""Users started or stopped per second; Locust warns above this."""
MOST_IDLE_STEPS = 100_000
MOST_ROUNDS = 1_000_000_000


class TraceShape(LoadTestShape):
    """As many users as a trace says; the load ends when the trace has been played `--loop` times."""

    def __init__(self) -> None:
        super().__init__()
        self.one_round: Series | None = None
        self.rounds = 1
        self._tick = (0, 1.0)

    def tick(self) -> tuple[int, float] | None:
        """Number of users, and how many are started or stopped per second; None at the end."""
        if self.one_round is None:
            raise RuntimeError("the locustfile has to call load_trace when Locust starts")
        users = users_at(self.one_round, self.get_run_time(), self.rounds)
        if users is None:
            return None
        if users != self._tick[0]:
            self._tick = (users, float(min(max(abs(users - self._tick[0]), 1), MAX_SPAWN_RATE)))
        return self._tick


def load_trace(environment: Environment) -> None:
    """Read the trace that the options name; a broken one ends Locust with one line.

    From then on SIGTERM ends a pass as Ctrl-C does.

    Without a window Locust hears SIGTERM only after a shape has ended; before, it would die without its last
    counts.
    """
    shape, options = environment.shape_class, environment.parsed_options
    if not isinstance(shape, TraceShape) or options is None or isinstance(environment.runner, WorkerRunner):
        return
    try:
        shape.one_round = (
            read_trace(options.trace)
            .with_idle_ends(options.idle_steps)
            .adjusted(scale=options.scale, step=options.period)
        )
    except DeepScalerError as error:
        sys.exit(f"load shape: {error}")
    most = float(shape.one_round.values.max())
    if most > MOST_USERS:
        sys.exit(
            f"load shape: {options.trace}: with --scale {options.scale:g} it reaches {most:g} users, "
            f"more than {MOST_USERS:,}; lower --scale"
        )
    shape.rounds = options.loop
    gevent.signal_handler(signal.SIGTERM, _end, environment)


def _end(environment: Environment) -> None:
    runner = environment.runner
    waiting = runner is None or runner.shape_greenlet is None  # for workers: there is no test to end yet
    if runner:
        runner.quit()
    if waiting:
        sys.exit(0)


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add the options of the shape."""
    parser.add_argument(
        "--trace",
        env_var="SENDFLOW_TRACE",
        default=str(README_TRACE),
        help=".req, or a CSV of counts with a column time",
    )
    parser.add_argument(
        "--scale",
        type=number(1e-9, 1e9),
        env_var="SENDFLOW_SCALE",
        default=1.0,
        help="the users of the trace are multiplied by this",
    )
    parser.add_argument(
        "--period",
        type=number(0.001, 1e7),
        env_var="SENDFLOW_PERIOD",
        help="seconds per value (default: 5; for a CSV as recorded)",
    )
    parser.add_argument(
        "--loop",
        type=whole(0, MOST_ROUNDS),
        env_var="SENDFLOW_LOOP",
        default=1,
        help="how often the trace is played; 0: for ever",
    )
    parser.add_argument(
        "--idle-steps",
        type=whole(0, MOST_IDLE_STEPS),
        env_var="SENDFLOW_IDLE_STEPS",
        default=IDLE_STEPS,
        help="idle values before and after the trace",
    )


@events.quitting.add_listener
def finish_csv(environment: Environment, **_: Any) -> None:
    """End the users, then give Locust's CSV writer time: the last second would be missing from the files."""
    options = environment.parsed_options
    if (
        environment.runner
        and options
        and options.csv_prefix
        and not isinstance(environment.runner, WorkerRunner)
    ):
        environment.runner.quit()
        gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.1)
