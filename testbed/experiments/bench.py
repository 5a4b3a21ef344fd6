"""How fast the engine is on one core: `python -m testbed.experiments.bench [--json]`.

Visits per second of three applications (median of five stretches), the 5 ms step of wall-clock mode at about
140 requests per second, and the time from a fresh interpreter to the first simulated second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

from testbed.applications.loading import load_application
from testbed.engine import kernel as core
from testbed.engine.program import compile_program
from testbed.engine.simulator import LoadPlan, Simulator

CASES = {
    "boutique_50": ("boutique", 50),
    "boutique_100": ("boutique", 100),
    "synthetic_1000": ("synthetic:1000", 100),
}
WARM = "from testbed.experiments.bench import simulator_of; simulator_of('boutique', 50).advance(1.0)"


def simulator_of(application: str, users: int, replicas: int | None = None) -> Simulator:
    """A steady closed loop, with enough replicas that each uses about half of its CPU limit."""
    program = compile_program(load_application(application))
    plan = LoadPlan.closed([0.0], [users], program.task_weights)
    trial = Simulator(program, plan, seed=1, replicas=np.full(program.num_services, 20))
    trial.advance(60.0)
    need = np.ceil(trial.cpu_total() / 60.0 / program.limit_cores / 0.5)
    return Simulator(program, plan, seed=1, replicas=np.maximum(need, replicas or 1).astype(int))


def visits_per_second(
    application: str, users: int, stretches: int = 5, seconds: float = 2.0
) -> dict[str, float]:
    """Median visits per CPU-second over stretches of about `seconds` each."""
    simulator = simulator_of(application, users)
    simulator.advance(20.0)
    began, visits = time.process_time(), simulator.visits
    simulator.advance(simulator.now + 100.0)
    pace = 100.0 / (time.process_time() - began)
    found = []
    for _ in range(stretches):
        began, visits = time.process_time(), simulator.visits
        simulator.advance(simulator.now + pace * seconds)
        found.append((simulator.visits - visits) / (time.process_time() - began))
    return {
        "visits_per_second": statistics.median(found),
        "lowest": min(found),
        "virtual_seconds_per_second": pace,
    }


def wall_clock_step(steps: int = 4000, rate: float = 140.0) -> dict[str, float]:
    """Milliseconds of a 5 ms step with arrivals injected as the gateway would."""
    program = compile_program(load_application("boutique"))
    simulator = Simulator(
        program,
        LoadPlan.closed([0.0], [0], program.task_weights),
        seed=1,
        replicas=np.full(program.num_services, 6),
    )
    random, found = np.random.default_rng(1), []
    for step in range(steps):
        arrivals = np.zeros(random.poisson(rate * 0.005), core.ARRIVAL)
        arrivals["time"] = np.sort(random.uniform(0.005 * step, 0.005 * (step + 1), len(arrivals)))
        arrivals["endpoint"] = random.integers(len(program.endpoints), size=len(arrivals))
        arrivals["id"] = step * 100 + np.arange(len(arrivals))
        began = time.perf_counter()
        simulator.advance(0.005 * (step + 1), arrivals)
        found.append(1e3 * (time.perf_counter() - began))
    return {"median_ms": statistics.median(found), "p99_ms": float(np.percentile(found, 99))}


def warm_start(runs: int = 3) -> dict[str, float]:
    """Seconds from a fresh interpreter to a simulated second, compiled code cached."""
    found = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", WARM], check=True)
        found.append(time.perf_counter() - began)
    return {"median_seconds": statistics.median(found[1:])}


def main(argv: list[str] | None = None) -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--compile", action="store_true", help="only compile the simulator, which is kept")
    arguments = parser.parse_args(argv)
    if arguments.compile:
        simulator_of("boutique", 50).advance(1.0)
        return 0
    results = {name: visits_per_second(*case) for name, case in CASES.items()}
    results["wall_clock_step"] = wall_clock_step()
    results["warm_start"] = warm_start()
    if arguments.json:
        print(json.dumps(results))
        return 0
    for name, figures in results.items():
        print(f"{name:16s} " + "  ".join(f"{key} {value:,.3f}" for key, value in figures.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
