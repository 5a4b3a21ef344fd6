"""Train a network and the affinity graph behind it, and export a bundle.

python main.py --model_name AdapGLA --data_dir data/boutique
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepscaler.artefacts import plain, write_json
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.learning.bundle import save_bundle, side_path
from deepscaler.learning.comparison import compare_networks, length_of_comparison
from deepscaler.learning.comparison_report import comparison_text
from deepscaler.learning.dataset import Dataset, read_dataset
from deepscaler.learning.entrants import ENTRANTS, entrants_of
from deepscaler.learning.history import read_history
from deepscaler.learning.interruption import exit_code, how_to_go_on, terminable
from deepscaler.learning.report import (
    library_versions,
    run_facts,
    shipping_line,
    summary_line,
    training_report,
)
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import train
from deepscaler.logs import start_logging
from deepscaler.pictures.history import draw_history
from deepscaler.settings import ModelConfig, Train, load_section
from model.networks import NETWORKS
from model.parallel import launched

log = logging.getLogger("main")
ALL = "all"
MODELS, TRAINING = "config/train_datasets_speed.yaml", "config/train_config.yaml"


def build_parser() -> argparse.ArgumentParser:
    """Flags of the training stage; a flag wins over YAML, and without it YAML's value holds."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add = parser.add_argument
    default = "(default: %(default)s)"
    add("--model_config_path", default=MODELS, help=f"settings of data set and networks {default}")
    add("--train_config_path", default=TRAINING, help=f"settings of optimiser, schedule, graph {default}")
    names = f"a network, several (AdapGLS,STID,AR), or all {default}"
    add("--model_name", default="AdapGLA", type=network_names, metavar="NAME[,NAME...]", help=names)
    add("--num_epoch", type=int, help="epochs of each M-step and each E-step")
    add("--num_iter", type=int, help="EM iterations")
    add("--model_save_path", help="file of the bundle (default: model_states/<app>/<model_name>.pt)")
    add("--max_graph_num", type=int, help="candidate graphs that are kept")
    add("--data_dir", help="directory of dataset.npz (default: dataset.data_dir of the model config)")
    add("--full", action="store_true", help="with several: train with the YAML's sizes, not with the budget")
    add("--json", action="store_true", help="with several: print JSON instead of tables")
    add("--save_forecasts", action="store_true", help="write validation and test forecasts as npz, too")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init_from", metavar="BUNDLE", help="start from the weights of a bundle")
    start.add_argument("--resume", action="store_true", help="continue an interrupted run exactly")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="model.*, train.*")
    return parser


def network_names(text: str) -> str:
    """The text, if it names networks that there are, or all."""
    unknown = [name for name in text.split(",") if name not in (*NETWORKS, ALL)]
    if unknown or (ALL in text.split(",") and text != ALL):
        raise argparse.ArgumentTypeError(
            f"{unknown[0] if unknown else ALL} among {text!r}; allowed: {', '.join(NETWORKS)}, several "
            f"with commas, or {ALL}"
        )
    return text


def main(argv: list[str] | None = None) -> int:
    """Train, write the bundle and what lies beside it, print errors and a summary line.

    Under torchrun only rank 0 writes and prints.
    """
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
        if arguments.model_name == ALL or "," in arguments.model_name:
            return compare_all(arguments, dataset, config, settings)
        name, app = arguments.model_name, dataset.meta["app"]
        path = Path(arguments.model_save_path or f"model_states/{app}/{name}.pt")
        with tqdm(unit="epoch", disable=True if rank else None, file=sys.stderr) as bar, terminable():
            saved = side_path(path, ".forecasts.npz") if arguments.save_forecasts else None
            task = TrainingTask(
                dataset,
                name,
                config,
                settings,
                path,
                report=lambda one: show(bar, str(one), one.total),
                forecasts=saved,
            )
            log.info("%s", task.length())
            trained = train(task, resume=arguments.resume, init_from=arguments.init_from)
        if rank:
            return 0
        save_bundle(trained.bundle, path, run_facts(trained))
        draw_history(read_history(task.history), side_path(path, ".history.png"), f"{name} on {app}")
        task.checkpoint.unlink(missing_ok=True)
    except DeepScalerError as error:
        if not local_rank:
            print(f"main: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        if not rank:
            print(f"main: interrupted; {how_to_go_on(task)}", file=sys.stderr)
        return exit_code(error)
    print(training_report(trained.bundle))
    print(shipping_line(path))
    print(summary_line(trained, path))
    return 0


def compare_all(arguments: argparse.Namespace, dataset: Dataset, config: ModelConfig, settings: Train) -> int:
    """Train networks with one budget; write comparison.json and print tables."""
    name = arguments.model_name
    if arguments.resume or arguments.init_from:
        raise SettingsError(
            f"--model_name {name}: takes neither --resume nor --init_from, all weights are fresh"
        )
    path = Path(arguments.model_save_path or f"model_states/{dataset.meta['app']}/comparison.json")
    entrants = ENTRANTS if name == ALL else entrants_of(name.split(","))
    forecasts = path.with_suffix("") if arguments.save_forecasts else None
    log.info("%s", length_of_comparison(entrants, settings, arguments.full))
    with tqdm(unit="training", disable=None, file=sys.stderr) as bar:
        report = functools.partial(show, bar)
        result = compare_networks(
            dataset,
            config,
            settings,
            full=arguments.full,
            report=report,
            entrants=entrants,
            forecasts=forecasts,
        )
    write_json(path, {**result, "versions": library_versions()})
    print(json.dumps(plain(result), indent=2) if arguments.json else f"{comparison_text(result)}\n\n{path}")
    return 0


def read_settings(arguments: argparse.Namespace) -> tuple[ModelConfig, Train]:
    """Both files, then `--set`, then the flags.

    Raises:
        SettingsError: see `deepscaler.settings`; or a `--set` that starts with neither `model.` nor `train.`.
    """
    overrides: dict[str, list[str]] = {"model": [], "train": []}
    for text in arguments.overrides:
        prefix, _, rest = text.partition(".")
        if prefix not in overrides or not rest:
            raise SettingsError(f"--set {text}: expected model.<key>=value or train.<key>=value")
        overrides[prefix].append(rest)
    for kind, key, value in (
        ("train", "num_epoch", arguments.num_epoch),
        ("train", "num_iter", arguments.num_iter),
        ("train", "graph.max_graph_num", arguments.max_graph_num),
        ("model", "dataset.data_dir", arguments.data_dir),
    ):
        overrides[kind] += [] if value is None else [f"{key}={value}"]
    config = load_section(ModelConfig, arguments.model_config_path, overrides["model"])
    return config, load_section(Train, arguments.train_config_path, overrides["train"])


def show(bar: Any, text: str, total: int) -> None:
    """Move the progress bar on by one of `total`, and show `text` beside it."""
    bar.total = total
    bar.set_postfix_str(text)
    bar.update()


if __name__ == "__main__":
    sys.exit(main())
