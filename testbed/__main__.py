"""Serve the emulated cluster over real network interfaces, or draft the settings of an emulated application.

python -m testbed serve --config config/boutique.yaml
python -m testbed config --application synthetic:30 > config.yaml
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading

from deepscaler.errors import ClusterError, DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.settings import Serve, load_settings
from sendFlow.routes import ROUTES
from testbed.experiments.draft import draft
from testbed.live.serve import LiveTestbed, running


def build_parser() -> argparse.ArgumentParser:
    """`serve`, `config` and their flags."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    serve = commands.add_parser(
        "serve", help="run gateway, metrics, Prometheus, Jaeger and Kubernetes APIs until Ctrl-C"
    )
    serve.add_argument(
        "--config", default="config/boutique.yaml", help="application settings (default: %(default)s)"
    )
    serve.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting",
    )
    config = commands.add_parser("config", help="print a draft of settings for an emulated application")
    config.add_argument(
        "--application",
        required=True,
        help="name of a file in testbed/apps without .yaml, path of such a file, or synthetic:N[:DRAW]",
    )
    config.add_argument(
        "--schema",
        default="app.schema.json",
        help="path of the JSON schema from the directory that the file will be in (default: %(default)s)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print settings, or serve until a signal comes."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        if arguments.command == "serve":
            serve(arguments.config, arguments.overrides)
        else:
            print(draft(arguments.application, arguments.schema), end="")
    except DeepScalerError as error:
        print(f"testbed {arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def serve(config: str, overrides: list[str]) -> None:
    """Serve until a signal comes.

    Raises:
        DeepScalerError: wrong settings, a port that is taken, or the engine failed.
    """
    sys.setswitchinterval(0.001)  # the engine's thread shouldn't wait long for the others
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = load_settings(config, overrides)
    with running(settings) as live:
        print(_welcome(live, config), flush=True)
        while not stop.wait(0.5):
            if live.failed.is_set():
                raise ClusterError("the engine failed; its traceback is in the log above")


def _welcome(live: LiveTestbed, config: str) -> str:
    """Where everything is, and what to type next."""
    found = live.addresses
    return "\n".join(
        [
            f"{live.program.name} ({config}) is up; Ctrl-C ends it.",
            f"  gateway     {found.gateway}",
            f"  Prometheus  {found.prometheus or 'not started'} (scrapes {found.metrics})",
            f"  page        {found.page or 'not served'}: open it in a browser",
            f"  Jaeger      {found.jaeger}/api/dependencies",
            f"  Kubernetes  {found.kubernetes}; see it with: "
            f"kubectl --kubeconfig {found.kubeconfig} get deploy -w",
            "",
            "Load it from a second terminal, scale it from a third:",
            f"  {_load_command(live)}",
            f"  python predict_scale.py{_scale_options(live, config)}",
        ]
    )


def _load_command(live: LiveTestbed) -> str:
    """sendLoop.sh with the options that differ from its defaults; for other applications, what it lacks."""
    host, name = live.addresses.gateway, live.program.name
    if name not in ROUTES:
        return (
            f"(no users of {name} yet: add its URLs to sendFlow/routes.py and its users to "
            "sendFlow/load_generator.py and sendFlow/sendLoop.sh, or ask the gateway with curl)"
        )
    return (
        "sh sendFlow/sendLoop.sh"
        + ("" if host.endswith(":30001") else f" --host {host}")
        + ("" if name == "boutique" else f" --application {name}")
    )


def _scale_options(live: LiveTestbed, config: str) -> str:
    """The options of predict_scale.py: config/live.yaml and what differs, or the settings of another one."""
    found, usual = live.addresses, Serve()
    if live.program.name != "boutique":
        own = {"kind": "kubernetes", "kubeconfig": found.kubeconfig, "prometheus.url": found.prometheus}
        return f" --config {shlex.quote(config)} --policy hpa_70" + "".join(
            f" --set {shlex.quote(f'cluster.{key}={value}')}" for key, value in own.items() if value
        )
    options = {
        "cluster.prometheus.url": (found.prometheus, f"http://127.0.0.1:{usual.prometheus_port}"),
        "scale.metrics_port": (live.serve.controller_port, usual.controller_port),
        "cluster.kubeconfig": (found.kubeconfig, f"{usual.directory}/kubeconfig"),
    }
    return " --config config/live.yaml" + "".join(
        f" --set {shlex.quote(f'{key}={value}')}"
        for key, (value, default) in options.items()
        if value and value != default
    )


if __name__ == "__main__":
    raise SystemExit(main())
