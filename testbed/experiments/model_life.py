"""The life of a model under load: trained again, judged, broken, exchanged, while a controller ticks.

python -m testbed.experiments.model_life

The controller is that of predict_scale.py. It scales one emulated service, whose time goes on with the real
one but faster; training runs beside it. No tick may be missed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pandas as pd

from deepscaler.artefacts import replacing
from deepscaler.control.live import run_live
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.policies.registry import make_policy
from deepscaler.runs import read_run
from deepscaler.settings import Settings, load_settings
from deepscaler.text import aligned
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.flags import positive
from testbed.live.debian import free_port

CONFIG = "config/studies/single.yaml"
HISTORY_SECONDS = 3600.0
"""The controller begins with so much of the past."""
PATIENCE_SECONDS = 60.0
"""A new bundle has to decide by then, in real time."""
BETTER, REFUSED = 0, 3
"""Exit statuses of main.py."""
SIZES = (
    *("--model_name=AdapGLA", "--set=model.AdapGLA.kernel=3", "--set=model.AdapGLA.blocks=1"),
    *(f"--set=model.AdapGLA.{name}_channels=8" for name in ("graph", "time")),
    *("--set=train.random_graphs=0", "--set=train.refit_epochs=0", "--set=train.gate.block_seconds=600"),
)
UNTRAINED = (
    *("--num_epoch=1", "--num_iter=1", "--set=train.optimiser.learning_rate=1e-9"),
    "--set=train.graph.learning_rate=1e-9",
)
TRAINED = ("--num_epoch=3", "--num_iter=2", "--set=train.graph.trainer=end_to_end")
Train = Callable[..., int]
"""Runs main.py with these arguments beside `--model_save_path`; returns its exit status."""


class PacedCluster(VirtualCluster):
    """A virtual cluster whose steady clock is the real one, but faster.

    Args:
        settings: those of the application.
        speed: virtual seconds per real one.
    """

    def __init__(self, settings: Settings, speed: float) -> None:
        self._speed = speed
        self._began: float | None = None  # until the past is there, no time passes
        super().__init__(settings)
        super().sleep_until(self.now() + HISTORY_SECONDS)
        self._first, self._began = self.now(), time.monotonic()

    def steady(self) -> float:
        """Seconds that have passed in reality, times the speed."""
        if self._began is None:
            return self.now()
        return self._first + self._speed * (time.monotonic() - self._began)

    def sleep_until(self, moment: float) -> None:
        """Wait until `moment` has come in reality, then simulate up to it."""
        if self._began is not None:
            time.sleep(max(moment - self.steady(), 0.0) / self._speed)
        super().sleep_until(moment)


@dataclass(frozen=True)
class Told:
    """What the controller tells on its port: which bundle decides, ticks, and files that it refused."""

    sha256: str
    ticks: int
    refused: int


@dataclass
class Stage:
    """One stage of the model's life.

    Attributes:
        name: what was done.
        wanted: whether all came as it should.
        ticks: that the controller made meanwhile.
        seconds: that it took.
        sha256: of the bundle that decides after it.
    """

    name: str
    wanted: bool
    ticks: int
    seconds: float
    sha256: str


def told(port: int) -> Told:
    """What the controller tells now.

    Raises:
        OSError: nothing answers.
    """
    opener = build_opener(ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()

    def found(pattern: str) -> str:
        match = re.search(pattern, text, re.MULTILINE)
        return "0" if match is None else match[1]

    return Told(
        found(r'^deepscaler_info\{.*bundle_sha256="(\w+)"'),
        int(float(found(r"^deepscaler_ticks_total (\S+)"))),
        int(float(found(r'^deepscaler_model_reloads_total\{result="refused"\} (\S+)'))),
    )


def lived(port: int, path: Path, train: Train) -> list[Stage]:
    """Lead a model through its life beside a controller that ticks; what came of each stage.

    Args:
        port: of the controller's metrics.
        path: of its bundle, one that is hardly trained.
        train: runs main.py.
    """
    stages: list[Stage] = []

    def stage(name: str, act: Callable[[], bool], came: Callable[[Told], bool]) -> None:
        before, began = told(port), time.monotonic()
        wanted = act() and _await(lambda: came(told(port)))
        after = told(port)
        seconds = time.monotonic() - began
        stages.append(Stage(name, wanted, after.ticks - before.ticks, seconds, after.sha256))

    def decides(found: Told) -> bool:
        return found.sha256 == sha256(path.read_bytes()).hexdigest()

    def torn() -> bool:
        with replacing(path) as temporary:
            temporary.write_bytes(good[:2000])
        return True

    def whole() -> bool:
        with replacing(path) as temporary:
            temporary.write_bytes(good)
        return True

    def asked() -> bool:
        exchanged = train("--rollback") == 0
        os.kill(os.getpid(), signal.SIGHUP)
        return exchanged

    _await(lambda: told(port).ticks > 0)
    first = told(port)
    again = (*TRAINED, f"--init_from={path}", "--gate")
    stage(
        "trained again: better, so taken",
        lambda: train(*again) == BETTER,
        lambda found: decides(found) and found.sha256 != first.sha256,
    )
    good, best = path.read_bytes(), told(port)
    stage("a worse one is refused", lambda: train(*UNTRAINED, "--gate") == REFUSED, lambda _now: True)
    stage("a torn file is refused", torn, lambda found: found.refused > best.refused)
    stage("the file is whole again", whole, decides)
    stage("rolled back", lambda: train("--rollback") == 0, lambda found: found.sha256 == first.sha256)
    stage("and forth, with SIGHUP", asked, lambda found: found.sha256 == best.sha256)
    kept = [best.sha256, best.sha256, best.sha256, first.sha256, best.sha256]
    for one, digest in zip(stages[1:], kept, strict=True):
        one.wanted = one.wanted and one.sha256 == digest
    return stages


def _await(came: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if came():
                return True
        except OSError:
            pass  # it doesn't listen yet
        time.sleep(0.1)
    return False


def missed(directory: Path, period: float) -> tuple[int, int]:
    """Ticks that a run made, and those that it missed between its first and its last."""
    times = pd.Series(read_run(directory).decisions["time"].unique()).sort_values()
    due = round((times.iloc[-1] - times.iloc[0]) / period) + 1
    return len(times), due - len(times)


def build_parser() -> argparse.ArgumentParser:
    """Flags of the experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--last", default="12h", help="how much is observed to train on")
    parser.add_argument("--speed", type=positive, default=15.0, help="virtual seconds per real one")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Observe, train, live, and print a table; 1 if a tick was missed or a stage went wrong."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    with tempfile.TemporaryDirectory(prefix="model-life-") as name:
        try:
            stages, made, lost = _life(Path(name), arguments.last, arguments.speed)
        except DeepScalerError as error:
            print(f"model_life: {error}", file=sys.stderr)
            return 1
    rows = [["stage", "as it should", "ticks meanwhile", "seconds", "decides"]]
    for one in stages:
        said = "yes" if one.wanted else "NO"
        rows.append([one.name, said, str(one.ticks), f"{one.seconds:.1f}", one.sha256[:8]])
    print("\n".join(aligned(rows, rule=True)))
    print(f"{made} ticks, {lost} missed")
    return int(lost > 0 or not all(one.wanted for one in stages))


def _life(directory: Path, last: str, speed: float) -> tuple[list[Stage], int, int]:
    """The stages, ticks that were made, and ticks that were missed."""
    data, path, port = directory / "data", directory / "AdapGLA.pt", free_port()
    _script(f"metrics_fetch.py --config {CONFIG} --last {last} --set collect.output_dir={data}")
    inputs = f"--set collect.output_dir={data} --set process.output_dir={data}"
    _script(f"data_process.py --config {CONFIG} {inputs}")

    def train(*arguments: str) -> int:
        shared = (f"--data_dir={data}", f"--model_save_path={path}")
        return _status(["main.py", *SIZES, *shared, *arguments])

    if train(*UNTRAINED):
        raise DataError("the first bundle can't be trained; see above")
    own = {"scale.bundle": path, "scale.run_dir": directory / "runs", "scale.metrics_port": port}
    settings = load_settings(CONFIG, [f"{key}={value}" for key, value in own.items()])
    return led(settings, PacedCluster(settings, speed), port, train)


def led(settings: Settings, cluster: PacedCluster, port: int, train: Train) -> tuple[list[Stage], int, int]:
    """`lived` beside a controller whose metrics are on `port`: the stages, ticks made, and ticks missed."""
    stages: list[Stage] = []

    def lead() -> None:
        try:
            stages.extend(lived(port, Path(settings.scale.bundle), train))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    policy = make_policy("deepscaler", settings)
    leading = threading.Thread(target=lead, name="life")
    leading.start()
    run = run_live(cluster, policy, settings)
    leading.join()
    return stages, *missed(run, policy.period_seconds)


def _status(words: list[str]) -> int:
    print(f"$ python {shlex.join(words)}", file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, *words], check=False, stdout=subprocess.DEVNULL).returncode


def _script(command: str) -> None:
    if _status(shlex.split(command)):
        raise DataError(f"python {command} failed; see above")


if __name__ == "__main__":
    raise SystemExit(main())
