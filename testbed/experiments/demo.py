"""The whole pipeline on the emulated Online Boutique, each script as a person would type it: `make demo`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from deepscaler.artefacts import write_json
from deepscaler.logs import VARIABLE

CONFIG = "config/demo.yaml"
STAGES = {
    "collect": f"python metrics_fetch.py --config {CONFIG}",
    "process": f"python data_process.py --config {CONFIG}",
    "train": "python main.py --model_config_path config/demo_datasets.yaml"
    " --train_config_path config/demo_train.yaml",
    "process rates": "python data_process.py --config config/demo_scenarios.yaml",
    "train on rates": "python main.py --model_name AdapGLQ"
    " --model_config_path config/demo_scenario_datasets.yaml"
    " --train_config_path config/scenario_train.yaml",
    "compare graphs": f"python similarity.py --config {CONFIG}",
    "scale": f"python predict_scale.py --config {CONFIG}",
    "evaluate": f"python calculate.py --config {CONFIG} --report runs/demo/report.html",
}
"""The stages and their commands, which are those of README.md."""
SUMMARY = Path("runs/demo/summary.json")


def main() -> int:
    """Run the stages and write how long each took into `runs/demo/summary.json`.

    Returns the exit code of the first stage that fails, else 0.
    """
    print("Observes an emulated Online Boutique, trains on it and scales it under loads it has never seen.")
    print("Compiling the simulator takes half a minute the first time.", flush=True)
    seconds: dict[str, float] = {}
    quiet = {VARIABLE: "WARNING", **os.environ}
    for name, command in STAGES.items():
        print(f"\n$ {command}", flush=True)
        began = time.perf_counter()
        status = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]], check=False, env=quiet
        ).returncode
        if status:
            print(f"demo: stage {name!r} failed (exit {status})", file=sys.stderr)
            return status
        seconds[name] = round(time.perf_counter() - began, 1)
    summary = json.loads(SUMMARY.read_text(encoding="utf-8"))
    write_json(SUMMARY, {**summary, "stages": seconds})
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(
        f"\n{sum(seconds.values()):.0f} s in all: {spent}. Written: {SUMMARY}, pictures beside it; "
        f"open {SUMMARY.with_name('report.html')} in a browser.",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
