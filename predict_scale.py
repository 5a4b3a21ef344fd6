"""Scale every service at once: run a policy on the testbed or on a live cluster, a run directory each.

python predict_scale.py --config config/boutique.yaml --policy hpa_70 --duration 3600
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pandas as pd

from deepscaler.cluster import ENDPOINT_COLUMNS, Cluster, Leadership, Undisputed
from deepscaler.control.controller import Controller, stopping_on_signals
from deepscaler.control.recorder import DecisionRow, Recorder
from deepscaler.control.self_metrics import serving_metrics
from deepscaler.errors import ClusterError, DeepScalerError, MetricsError, SettingsError
from deepscaler.logs import start_logging
from deepscaler.panel import MetricPanel
from deepscaler.policies.registry import make_policy
from deepscaler.runs import Run, write_run
from deepscaler.settings import Settings, load_settings

log = logging.getLogger("predict_scale")


def build_parser() -> argparse.ArgumentParser:
    """Flags of the scaling stage."""
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
    parser.add_argument("--model_path", metavar="BUNDLE", help="the trained bundle (default: scale.bundle)")
    parser.add_argument(
        "--policy",
        help="deepscaler, reactive_holistic, hpa_70, … (default: scale.policies, else scale.policy)",
    )
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="how long to run (default: scale.duration)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and record, write nothing to the cluster"
    )
    parser.add_argument("--once", action="store_true", help="one tick, its decisions on stdout")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the policies and print one line a run directory."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        settings = load_settings(arguments.config, [*arguments.overrides, *_flags(arguments)])
        log.info("settings: %s", settings.model_dump_json())
        policies = settings.scale.policies or [settings.scale.policy]
        if arguments.once:
            print(_table(_tick(settings, policies)))
        elif settings.cluster.kind == "testbed":
            runs = _on_testbed(settings, policies)
            print(
                runs[0]
                if len(runs) == 1
                else f"{settings.scale.run_dir}: {len(runs)} runs of {', '.join(policies)}"
            )
        else:
            print(_live(settings, policies))
    except DeepScalerError as error:
        print(f"predict_scale: {error}", file=sys.stderr)
        return 1
    return 0


def _flags(arguments: argparse.Namespace) -> list[str]:
    """The flags as overrides: they win over YAML and --set."""
    given = {
        "scale.bundle": arguments.model_path,
        "scale.policy": arguments.policy,
        "scale.policies": [] if arguments.policy else None,
        "scale.duration": arguments.duration,
        "scale.dry_run": arguments.dry_run or None,
    }
    return [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]


def _on_testbed(settings: Settings, policies: list[str]) -> list[Path]:
    """Every policy on every seed, in virtual time."""
    from testbed.experiments.runs import run_many

    return run_many(settings, policies, settings.scale.seeds or [settings.testbed.seed])


def _tick(settings: Settings, policies: list[str]) -> list[DecisionRow]:
    cluster, policy = _connect(settings), make_policy(_single(policies), settings)
    with _leave_to_write(cluster, settings, wait=True) as leadership:
        return Controller(cluster, policy, settings, leading=leadership.leading).tick()


def _leave_to_write(cluster: Cluster, settings: Settings, wait: bool) -> AbstractContextManager[Leadership]:
    """On a cluster that is to be written to, rights are checked and replicas of the controller elect a leader."""
    return nullcontext(Undisputed()) if settings.scale.dry_run else cluster.leadership(wait=wait)


def _connect(settings: Settings) -> Cluster:
    if settings.cluster.kind == "testbed":
        from testbed import connect

        return connect(settings)
    from deepscaler.adapters.kubernetes.cluster import KubernetesCluster

    return KubernetesCluster(settings)


def _single(policies: list[str]) -> str:
    if len(policies) > 1:
        raise SettingsError(
            f"scale.policies: one policy at a time acts on a live cluster, found {', '.join(policies)}; choose by --policy"
        )
    return policies[0]


def _live(settings: Settings, policies: list[str]) -> Path:
    """Run one policy until the duration is over or a signal comes; decisions.csv grows with each tick."""
    cluster, policy = _connect(settings), make_policy(_single(policies), settings)
    seed = (settings.scale.seeds or [0])[0]
    directory = Path(settings.scale.run_dir) / f"{policy.name}-{seed}"
    recorder = Recorder(directory)
    earlier = recorder.decisions()
    start = cluster.now() if earlier.empty else float(earlier["time"].iloc[0])
    with stopping_on_signals() as stop:
        with _leave_to_write(cluster, settings, wait=False) as leadership:
            controller = Controller(
                cluster, policy, settings, recorder, survive_bugs=True, leading=leadership.leading
            )
            with serving_metrics(controller, settings):
                controller.run(settings.scale.duration, stop=stop)
        write_run(_recorded(controller, settings, seed, start), directory)
    return directory


def _recorded(controller: Controller, settings: Settings, seed: int, start: float) -> Run:
    """All that the run left behind. What can't be read any more is left out, loudly: the decisions are worth keeping."""
    cluster, recorder, step = controller.cluster, controller.recorder, settings.collect.step
    end = cluster.now()
    endpoints, panel = pd.DataFrame(columns=list(ENDPOINT_COLUMNS)), None
    info = {"policy": controller.policy.name, "seed": seed, "start": start}
    try:
        info = controller.describe(seed, start)
        endpoints = cluster.latencies(start, end, step)
        panel = _metrics(cluster, start, end, step)
    except (MetricsError, ClusterError) as error:
        log.error("the run directory is incomplete: %s", error)
    return Run(info, endpoints, recorder.decisions(), recorder.pods(), panel)


def _metrics(cluster: Cluster, start: float, end: float, step: float) -> MetricPanel | None:
    return cluster.metrics(start + step, end, step) if end - start >= step else None


def _table(rows: list[DecisionRow]) -> str:
    shown = ["service", "current", "ready", "predicted", "floor", "target", "applied", "reason", "mode"]
    recorder = Recorder()
    recorder.add_decisions(rows)
    return (
        recorder.decisions()
        .loc[:, shown]
        .to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.3g}")
    )


if __name__ == "__main__":
    raise SystemExit(main())
