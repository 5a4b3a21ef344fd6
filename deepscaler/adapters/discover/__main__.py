"""Draft config/<name>.yaml from a live namespace: services, Deployments, containers, limits and entries.

python -m deepscaler.adapters.discover --namespace boutique --prometheus http://127.0.0.1:30090

It only reads from the cluster. What it can't know is marked CHECK in the file. The draft is valid settings as
it stands.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from deepscaler.adapters.discover.draft import draft
from deepscaler.adapters.discover.entries import entries_of
from deepscaler.adapters.discover.services import services_of
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.artefacts import write_text
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.settings import ClusterSection, Settings, load_settings


def build_parser() -> argparse.ArgumentParser:
    """Flags of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m deepscaler.adapters.discover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--namespace", required=True, help="the namespace that the application runs in")
    parser.add_argument("--name", help="name of the application (default: that of the namespace)")
    parser.add_argument(
        "--prometheus", metavar="URL", help="tells which services traffic from outside reaches (Istio)"
    )
    parser.add_argument(
        "--kubeconfig",
        help="how to reach the cluster (default: KUBECONFIG, ~/.kube/config, then the pod's service account)",
    )
    parser.add_argument("--context", help="context of the kubeconfig (default: its current one)")
    parser.add_argument(
        "--output", metavar="FILE", help="file to write (default: config/<name>.yaml); - is stdout"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the draft and say what to check."""
    arguments = build_parser().parse_args(argv)
    name = arguments.name or arguments.namespace
    output = (
        None if arguments.output == "-" else Path(arguments.output or f"config/{name.replace('-', '_')}.yaml")
    )
    try:
        if output is not None and output.exists() and not arguments.force:
            raise SettingsError(f"{output}: exists already; give another --output, or --force")
        given = {"kubeconfig": arguments.kubeconfig, "context": arguments.context}
        cluster = ClusterSection(kind="kubernetes", **{key: value for key, value in given.items() if value})
        api = KubeApi(cluster)
        services = services_of(api, arguments.namespace)
        entries, how = entries_of(api, services, arguments.namespace, arguments.prometheus, time.time())
        text = draft(name, arguments.namespace, services, entries, how, cluster, arguments.prometheus)
        _check(text)
        if output is None:
            print(text, end="")
        else:
            write_text(output, text)
            scaled = sum(not item.reason for item in services)
            print(
                f"{output}: {len(services)} services, {scaled} of them scaled, {len(entries)} entries; "
                "look at the lines marked CHECK"
            )
    except DeepScalerError as error:
        print(f"discover: {error}", file=sys.stderr)
        return 1
    return 0


def _check(text: str) -> Settings:
    """Load the draft as settings.

    Raises:
        SettingsError: it isn't valid settings, because two services claim one workload.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "draft.yaml"
        write_text(path, text)
        return load_settings(path)


if __name__ == "__main__":
    raise SystemExit(main())
