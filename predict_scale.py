"""Scale every service at once, with policies on the testbed or one policy on a live cluster.

python predict_scale.py --config config/boutique.yaml --policy hpa_70 --duration 3600
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from deepscaler.cluster import Cluster
from deepscaler.control.check import findings
from deepscaler.control.live import run_live, tick_once
from deepscaler.control.recorder import decision_table
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.findings import summary
from deepscaler.logs import FORMATS, start_logging
from deepscaler.policies.registry import make_policy
from deepscaler.settings import Settings, load_settings
from deepscaler.settings.advice import follow

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
        help="deepscaler, reactive_holistic, hpa_70, … (default: scale.policies, or else scale.policy)",
    )
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="how long to run (default: scale.duration)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and record, but write nothing to the cluster"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="say what a start needs and what of it is missing",
    )
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default="text",
        help="how lines of the log look (default: %(default)s)",
    )
    parser.add_argument(
        "--give-back",
        choices=("expired", "all"),
        help="give back minimums of HPAs that `scale.mode: advise` raised, and end",
    )
    parser.add_argument("--once", action="store_true", help="decide once and print the decisions")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the policies, and print where the runs are."""
    arguments = build_parser().parse_args(argv)
    start_logging(arguments.log_format)
    try:
        overrides = [*arguments.overrides, *_flags(arguments)]
        follow(arguments.config, overrides)
        settings = load_settings(arguments.config, overrides)
        log.info("settings: %s", settings.model_dump_json())
        policies = settings.scale.policies or [settings.scale.policy]
        if arguments.check:
            return check(settings)
        if arguments.give_back:
            return give_back(settings, every=arguments.give_back == "all")
        if arguments.once:
            policy = make_policy(_single(policies), settings)
            print(decision_table(tick_once(connect(settings), policy, settings)))
        elif settings.cluster.kind == "testbed":
            runs = _on_testbed(settings, policies)
            several = f"{settings.scale.run_dir}: {len(runs)} runs of {', '.join(policies)}"
            print(runs[0] if len(runs) == 1 else several)
        else:
            policy = make_policy(_single(policies), settings)
            print(run_live(connect(settings), policy, settings))
    except DeepScalerError as error:
        print(f"predict_scale: {error}", file=sys.stderr)
        return 1
    return 0


def check(settings: Settings) -> int:
    """Print what a start needs, a line each as it is found; returns 1 if anything is missing."""
    found = []
    for finding in findings(settings):
        print(finding, flush=True)
        found.append(finding)
    print(summary(found))
    return int(any(finding.state == "MISSING" for finding in found))


def give_back(settings: Settings, *, every: bool) -> int:
    """Give back raised minimums, a line each; returns 1 if one of them couldn't be."""
    from deepscaler.adapters.kubernetes.giving_back import GivingBack

    giving = GivingBack(settings)
    for line in giving.run(time.time(), every=every):
        print(line, flush=True)
    return int(giving.failures > 0)


def _flags(arguments: argparse.Namespace) -> list[str]:
    """The flags as overrides; they win over the YAML file and over --set."""
    given = {
        "scale.bundle": arguments.model_path,
        "scale.policy": arguments.policy,
        "scale.policies": [] if arguments.policy else None,
        "scale.duration": arguments.duration,
        **({"scale.mode": "shadow", "scale.modes": {}, "scale.dry_run": True} if arguments.dry_run else {}),
    }
    return [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]


def _single(policies: list[str]) -> str:
    if len(policies) > 1:
        raise SettingsError(
            f"scale.policies: one policy at a time acts on a live cluster, found {', '.join(policies)}; "
            "choose by --policy"
        )
    return policies[0]


def _on_testbed(settings: Settings, policies: list[str]) -> list[Path]:
    """Run every policy on every seed, in virtual time."""
    from testbed.experiments.runs import run_many

    return run_many(settings, policies, settings.scale.seeds or [settings.testbed.seed])


def connect(settings: Settings) -> Cluster:
    """The cluster that `cluster.kind` names."""
    if settings.cluster.kind == "testbed":
        from testbed import connect as connect_testbed

        return connect_testbed(settings)
    from deepscaler.adapters.kubernetes.cluster import KubernetesCluster

    return KubernetesCluster(settings)


if __name__ == "__main__":
    raise SystemExit(main())
