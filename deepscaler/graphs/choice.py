"""Which graphs to compare: those that were given, or by default those that the earlier stages left behind."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from deepscaler.bundle_names import lies_beside
from deepscaler.errors import DataError
from deepscaler.settings import Settings

log = logging.getLogger(__name__)


def default_graphs(settings: Settings, config: str) -> list[Path]:
    """The files of the recorded calls, the call structure, and what was learned from `od` and from `cc`.

    Where nothing was learned from one of these priors, a warning names the command that does, and all
    priors and learned graphs that are there stand in.

    Args:
        settings: of the application: where its data set and its bundles are.
        config: the settings' file, for the commands in messages.

    Raises:
        DataError: there are fewer than two graphs.
    """
    data, states = Path(settings.process.output_dir) / "graphs", Path(settings.scale.bundle).parent
    learned = sorted(path for path in states.glob("*.affinity.csv") if not lies_beside(path))
    by_prior = {
        prior: [path for path in learned if prior in re.split(r"[-_.]", path.name)] for prior in ("od", "cc")
    }
    absent = [prior for prior, paths in by_prior.items() if not paths]
    for prior in absent:
        log.warning(
            "no bundle in %s was learned from the prior %s; train one with: %s",
            states,
            prior,
            train_command(settings, config, prior),
        )
    calls = data / ("call.csv" if (data / "call.csv").is_file() else "calls.csv")
    chosen = [calls, data / "structural.csv"]
    if absent:
        chosen += [*(data / f"{prior}.csv" for prior in absent), *learned]
    else:
        chosen += [*by_prior["od"], *by_prior["cc"]]
    found = [path for path in dict.fromkeys(chosen) if path.is_file()]
    if len(found) < 2:
        listed = f"found {found[0]} only" if found else "found none"
        raise DataError(
            f"two graphs are needed in {data} and {states}, {listed}; "
            f"make them with: python data_process.py --config {config}"
        )
    return found


def train_command(settings: Settings, config: str, prior: str) -> str:
    """The two commands that learn a graph from this prior."""
    data, states = f"{settings.process.output_dir}-{prior}", Path(settings.scale.bundle).parent
    process = f"--config {config} --set 'process.priors=[{prior}]' --set process.output_dir={data}"
    train = f"--data_dir {data} --model_save_path {states}/AdapGLA-{prior}.pt"
    return f"python data_process.py {process} && python main.py {train}"


def graph_names(paths: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """Names as given, else those of the files (`call`, `AdapGLA-od`), with directories where two are equal.

    Raises:
        DataError: there are fewer than two graphs, or not as many names, or two with the same name.
    """
    if names is not None and len(names) != len(paths):
        raise DataError(f"--names gives {len(names)} name(s) for {len(paths)} graph(s)")
    short = list(names or [path.name.removesuffix(".csv").removesuffix(".affinity") for path in paths])
    if names is None and len(set(short)) < len(short):
        short = [f"{path.parent.name}/{name}" for path, name in zip(paths, short, strict=True)]
    if len(set(short)) < len(short) or len(short) < 2:
        raise DataError(
            f"at least two graphs with different names are needed, found {', '.join(short)}; "
            "give --graphs and --names"
        )
    return short
