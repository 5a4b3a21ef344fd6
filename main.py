"""Train a network and the affinity graph behind it, and export a bundle.

python main.py --model_config_path config/train_datasets_speed.yaml --train_config_path config/train_config.yaml --model_name AdapGLA
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepscaler.artefacts import plain, write_json
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.learning.bundle import save_bundle, side_path
from deepscaler.learning.comparison import compare, comparison_report
from deepscaler.learning.dataset import Dataset, read_dataset
from deepscaler.learning.graph_report import graph_lines, table
from deepscaler.learning.history import read_history
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import Trained, train
from deepscaler.logs import start_logging
from deepscaler.pictures.history import draw_history
from deepscaler.settings import ModelConfig, Train, load_section
from model.course import Progress
from model.networks import NETWORKS
from model.parallel import launched

log = logging.getLogger("main")
ALL = "all"
MEASURES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mape": "MAPE",
    "under_provision": "under",
    "over_provision": "over",
}


def build_parser() -> argparse.ArgumentParser:
    """Flags of the training stage; a flag wins over YAML, without it YAML's value holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model_config_path",
        default="config/train_datasets_speed.yaml",
        help="data set and networks (default: %(default)s)",
    )
    parser.add_argument(
        "--train_config_path",
        default="config/train_config.yaml",
        help="optimiser, schedule, graph (default: %(default)s)",
    )
    parser.add_argument(
        "--model_name",
        default="AdapGLA",
        choices=(*NETWORKS, ALL),
        help="network, or all (default: %(default)s)",
    )
    parser.add_argument("--num_epoch", type=int, help="epochs an M- or E-step")
    parser.add_argument("--num_iter", type=int, help="EM iterations")
    parser.add_argument(
        "--model_save_path", help="the bundle's file (default: model_states/<app>/<model_name>.pt)"
    )
    parser.add_argument("--max_graph_num", type=int, help="candidate graphs kept")
    parser.add_argument(
        "--data_dir", help="directory of dataset.npz (default: dataset.data_dir of the model config)"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="all: the sizes, window and epochs of the YAML instead of the bench budget",
    )
    parser.add_argument("--json", action="store_true", help="all: print JSON instead of tables")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init_from", metavar="BUNDLE", help="retrain from a bundle")
    start.add_argument("--resume", action="store_true", help="continue an interrupted run exactly")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="model.<key> or train.<key>",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train, write bundle, JSON, affinity and history, print errors and one summary line. Under torchrun rank 0 does it."""
    arguments = build_parser().parse_args(argv)
    rank, local_rank, _ = launched()
    start_logging()
    if rank:
        logging.disable(logging.WARNING)
    task: TrainingTask | None = None
    try:
        config, settings = read_settings(arguments)
        log.info("settings: %s %s", settings.model_dump_json(), config.dataset.model_dump_json())
        dataset = read_dataset(config.dataset.data_dir)
        if arguments.model_name == ALL:
            return compare_all(arguments, dataset, config, settings)
        path = Path(
            arguments.model_save_path or f"model_states/{dataset.meta['app']}/{arguments.model_name}.pt"
        )
        with tqdm(unit="epoch", disable=True if rank else None, file=sys.stderr) as bar:
            task = TrainingTask(
                dataset, arguments.model_name, config, settings, path, lambda progress: show(bar, progress)
            )
            with terminable():
                trained = train(task, resume=arguments.resume, init_from=arguments.init_from)
        if rank:
            return 0
        run = {
            "samples_per_second": trained.samples_per_second,
            "seconds": trained.seconds,
            "versions": versions(),
        }
        save_bundle(trained.bundle, path, run)
        draw_history(
            read_history(task.history),
            side_path(path, ".history.png"),
            f"{arguments.model_name} on {dataset.meta['app']}",
        )
        task.checkpoint.unlink(missing_ok=True)
    except DeepScalerError as error:
        if not local_rank:
            print(f"main: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        if not rank:
            print(f"main: interrupted; {how_to_go_on(task)}", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    print(report(trained))
    print(summary(trained, path))
    return 0


def compare_all(arguments: argparse.Namespace, dataset: Dataset, config: ModelConfig, settings: Train) -> int:
    """Every network with one budget: comparison.json and tables."""
    if arguments.resume or arguments.init_from:
        raise SettingsError(
            "--model_name all: takes neither --resume nor --init_from: each network is trained from fresh weights"
        )
    path = Path(arguments.model_save_path or f"model_states/{dataset.meta['app']}/comparison.json")
    with tqdm(unit="training", disable=None, file=sys.stderr) as bar:

        def show_run(name: str, done: int, jobs: int) -> None:
            bar.total = jobs
            bar.set_postfix_str(name)
            bar.update()

        result = compare(dataset, config, settings, full=arguments.full, report=show_run)
    write_json(path, {**result, "versions": versions()})
    print(
        json.dumps(plain(result), indent=2)
        if arguments.json
        else f"{comparison_report(result, table)}\n\n{path}"
    )
    return 0


def how_to_go_on(task: TrainingTask | None) -> str:
    """After an interruption."""
    if task is None or not task.checkpoint.is_file():
        return "no iteration had finished, so nothing is kept"
    return "the same command with --resume continues after the last finished iteration"


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does; the error carries the signal's number."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_settings(arguments: argparse.Namespace) -> tuple[ModelConfig, Train]:
    """Both files, then `--set`, then the flags.

    Raises:
        SettingsError: see `deepscaler.settings`; a prefix that is neither `model.` nor `train.`.
    """
    overrides: dict[str, list[str]] = {"model": [], "train": []}
    for text in arguments.overrides:
        prefix, _, rest = text.partition(".")
        if prefix not in overrides or not rest:
            raise SettingsError(f"--set {text}: expected model.<key>=value or train.<key>=value")
        overrides[prefix].append(rest)
    flags = {
        "num_epoch": arguments.num_epoch,
        "num_iter": arguments.num_iter,
        "graph.max_graph_num": arguments.max_graph_num,
    }
    overrides["train"] += [f"{key}={value}" for key, value in flags.items() if value is not None]
    if arguments.data_dir is not None:
        overrides["model"].append(f"dataset.data_dir={arguments.data_dir}")
    config = load_section(ModelConfig, arguments.model_config_path, overrides["model"])
    return config, load_section(Train, arguments.train_config_path, overrides["train"])


def show(bar: Any, progress: Progress) -> None:
    """One epoch on."""
    bar.total = progress.total
    bar.set_postfix_str(
        f"{progress.phase} {progress.iteration + 1}: {progress.training:.4f} / {progress.validation:.4f}"
    )
    bar.update()


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {name: metadata.version(name) for name in ("torch", "numpy", "pandas")}


def report(trained: Trained) -> str:
    """Tables: errors by forecast, by horizon step and by service; the graph beside its rivals."""
    errors, bundle = trained.bundle.errors, trained.bundle
    lines: list[str] = []
    for split in ("validation", "test"):
        if split not in errors:
            continue
        made = errors[split]
        lines += ["", f"{split} ({errors['unit']}, {made[bundle.network]['windows']} windows)"]
        rows = [["", *MEASURES.values()]]
        rows += [[name, *(f"{values[key]:.4f}" for key in MEASURES)] for name, values in made.items()]
        lines += table(rows)
        heads = [f"step {index + 1}" for index in range(bundle.shape.horizon)]
        for kind, names in (("step", heads), ("service", list(bundle.services))):
            rows = [
                [f"by {kind}", *(f"{name} {label}" for name in made for label in ("MAE", "RMSE", "MAPE"))]
            ]
            for index, name in enumerate(names):
                cells = [
                    f"{made[who][f'{key}_by_{kind}'][index]:.4f}"
                    for who in made
                    for key in ("mae", "rmse", "mape")
                ]
                rows.append([name, *cells])
            lines += ["", *table(rows)]
    if errors["season_steps"] is None:
        lines += ["", "no season in the training labels: SeasonalNaive is Persistence"]
    return "\n".join([*lines[1:], "", *graph_lines(bundle.graph), errors["verdict"], ""])


def summary(trained: Trained, path: Path) -> str:
    """The last line."""
    bundle, errors = trained.bundle, trained.bundle.errors
    split = "test" if "test" in errors else "validation"
    maes = ", ".join(f"{name} {values['mae']:.4f}" for name, values in errors[split].items())
    return (
        f"{path} ({side_path(path, '.json').name}, {side_path(path, '.affinity.csv').name}): {split} MAE {maes} {errors['unit']}; "
        f"{trained.iterations} iterations, {trained.samples_per_second:.0f} samples/s, seed {bundle.settings['seed']}"
    )


if __name__ == "__main__":
    sys.exit(main())
