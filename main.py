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

from deepscaler.artefacts import ensure_writable, plain, write_json
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.learning.bundle import save_bundle, side_path
from deepscaler.learning.comparison import compare_networks, length_of_comparison
from deepscaler.learning.comparison_report import comparison_text
from deepscaler.learning.dataset import Dataset, read_dataset
from deepscaler.learning.entrants import ENTRANTS, entrants_of
from deepscaler.learning.gate import Verdict, judge_candidate
from deepscaler.learning.generations import candidate_of, check_place, previous_of, promote, roll_back
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
from deepscaler.learning.train import Trained, train
from deepscaler.logs import start_logging
from deepscaler.pictures.history import draw_history
from deepscaler.settings import GateSettings, ModelConfig, Train, load_section
from deepscaler.settings.advice import follow_training
from model.course import Progress
from model.networks import NETWORKS
from model.parallel import launched

log = logging.getLogger("main")
ALL = "all"
REFUSED = 3
"""Exit status where the gate let a new bundle not take the old one's place."""
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
    exchanged = "exchange the bundle of --model_save_path and the one before it, and train nothing"
    start.add_argument("--rollback", action="store_true", help=exchanged)
    judged = "replace a bundle only if decisions get cheaper by more than noise; otherwise exit status 3"
    add("--gate", action="store_true", help=judged)
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
    try:
        several = arguments.model_name == ALL or "," in arguments.model_name
        if arguments.rollback or several:
            check_alone("--rollback" if arguments.rollback else f"--model_name {arguments.model_name}")
        if arguments.rollback:
            return rolled_back(arguments.model_save_path)
        config, settings = read_settings(arguments)
        follow_training(config.dataset.data_dir, sys.argv[1:] if argv is None else argv)
        log.info("settings: %s %s", settings.model_dump_json(), config.dataset.model_dump_json())
        dataset = read_dataset(config.dataset.data_dir)
        return (compare_all if several else train_one)(arguments, dataset, config, settings)
    except DeepScalerError as error:
        if not local_rank:
            print(f"main: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        return interrupted(error, None)


def check_alone(asked: str) -> None:
    """Refuse under torchrun what each rank would do once more.

    Raises:
        SettingsError: there is more than one rank.
    """
    ranks = launched()[2]
    if ranks > 1:
        raise SettingsError(f"{asked}: takes one process, and torchrun started {ranks}; start it with python")


def interrupted(error: KeyboardInterrupt, task: TrainingTask | None) -> int:
    """Say how to go on, and return the exit status."""
    if not launched()[0]:
        print(f"main: interrupted; {how_to_go_on(task)}", file=sys.stderr)
    return exit_code(error)


def train_one(arguments: argparse.Namespace, dataset: Dataset, config: ModelConfig, settings: Train) -> int:
    """Train one network; write its bundle and what lies beside it, and print how good it is."""
    rank, name, app = launched()[0], arguments.model_name, dataset.meta["app"]
    path = Path(arguments.model_save_path or f"model_states/{app}/{name}.pt")
    saved = side_path(path, ".forecasts.npz") if arguments.save_forecasts else None
    check_place(path)
    task: TrainingTask | None = None
    try:
        with tqdm(unit="epoch", disable=True if rank else None, file=sys.stderr) as bar, terminable():
            report = functools.partial(show_progress, bar)
            task = TrainingTask(dataset, name, config, settings, path, report=report, forecasts=saved)
            log.info("%s", task.length())
            trained = train(task, resume=arguments.resume, init_from=arguments.init_from)
        if rank:
            return 0
        verdict = keep(trained, path, dataset, settings.gate if arguments.gate else None)
        draw_history(read_history(task.history), side_path(path, ".history.png"), f"{name} on {app}")
        task.checkpoint.unlink(missing_ok=True)
    except KeyboardInterrupt as error:
        return interrupted(error, task)
    print(training_report(trained.bundle))
    if verdict is not None:
        print(f"{path}: {'replaced' if verdict.taken else 'stays'}: the new bundle: {verdict.why}")
    kept = path if verdict is None or verdict.taken else candidate_of(path)
    print(shipping_line(kept))
    print(summary_line(trained, kept))
    return 0 if kept == path else REFUSED


def keep(trained: Trained, path: Path, dataset: Dataset, gate: GateSettings | None) -> Verdict | None:
    """Write the bundle as a candidate, and let it take the place of the one at `path`, which is kept.

    With a gate it is judged first, and `<name>.gate.json` says how; one that isn't taken stays a candidate.
    """
    save_bundle(trained.bundle, candidate_of(path), run_facts(trained))
    verdict = None if gate is None else judge_candidate(candidate_of(path), path, dataset, gate)
    if verdict is None or verdict.taken:
        promote(path)
    if verdict is not None:
        write_json(side_path(path, ".gate.json"), verdict.to_dict())
    return verdict


def rolled_back(path: str | None) -> int:
    """Exchange a bundle and the one before it, and say which is which."""
    if path is None:
        raise SettingsError("--rollback: which bundle? give it by --model_save_path")
    restored, replaced = roll_back(Path(path))
    print(f"{path}: sha256 {restored} again; {previous_of(Path(path)).name} is sha256 {replaced or 'none'}")
    return 0


def compare_all(arguments: argparse.Namespace, dataset: Dataset, config: ModelConfig, settings: Train) -> int:
    """Train networks with one budget; write comparison.json and print tables."""
    name = arguments.model_name
    if arguments.resume or arguments.init_from or arguments.gate:
        raise SettingsError(
            f"--model_name {name}: takes neither --resume nor --init_from nor --gate, all weights are fresh"
        )
    path = Path(arguments.model_save_path or f"model_states/{dataset.meta['app']}/comparison.json")
    if path.suffix != ".json" or path.is_dir():
        raise SettingsError(f"--model_save_path {path}: a comparison of networks is a .json file, no bundle")
    ensure_writable(path.parent)
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


def show_progress(bar: Any, progress: Progress) -> None:
    """Move the progress bar on by one epoch."""
    show(bar, str(progress), progress.total)


def show(bar: Any, text: str, total: int) -> None:
    """Move the progress bar on by one of `total`, and show `text` beside it."""
    bar.total = total
    bar.set_postfix_str(text)
    bar.update()


if __name__ == "__main__":
    sys.exit(main())
