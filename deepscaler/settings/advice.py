"""Which commands make a bundle or a data set, for messages: they name the network and the settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from deepscaler import commands
from deepscaler.errors import SettingsError
from deepscaler.settings.loading import load_settings
from deepscaler.settings.stages import BUILT_IN_PRIORS

CONFIGS = Path("config")
SCENARIOS = "AdapGLQ"
"""The network that forecasts offered rates: it learns another label, and so from another data set."""


def follow(config: str, overrides: Sequence[str] = ()) -> None:
    """From now on commands in messages are for the settings that a script was given."""

    def training() -> str:
        try:
            return train_with(load_settings(config, overrides).scale.bundle)
        except SettingsError:
            return "python main.py"

    commands.remember(lambda: (config, overrides), training)


def follow_training(directory: str, given: Sequence[str]) -> None:
    """The same for `main.py`.

    Args:
        directory: of the data set.
        given: its arguments.
    """
    commands.remember(lambda: settings_of(directory), lambda: shlex.join(["python", "main.py", *given]))


def train_with(path: str | Path) -> str:
    """The command that makes a bundle, as it stands in messages.

    The file is called after its network (`AdapGLQ.pt`) and the prior that it starts from (`AdapGLA-od.pt`),
    its folder in `model_states/` after the application; what these don't tell is left to the defaults.
    """
    path = Path(path)
    network, _, prior = path.stem.partition("-")
    app = path.parent.name if path.parent.parent.name == "model_states" else ""
    words = ["python main.py", *([f"--model_name {network}"] if re.fullmatch(r"[A-Z]\w*", network) else [])]
    if network == SCENARIOS:
        words.append("--model_config_path config/demo_scenario_datasets.yaml")
        words.append("--train_config_path config/scenario_train.yaml")
    elif (CONFIGS / f"{app}_datasets.yaml").is_file():
        words.append(f"--model_config_path {CONFIGS}/{app}_datasets.yaml")
        if (CONFIGS / f"{app}_train.yaml").is_file():
            words.append(f"--train_config_path {CONFIGS}/{app}_train.yaml")
    if app:
        rest = "_scenarios" if network == SCENARIOS else f"-{prior}" if prior else ""
        words.append(f"--data_dir {shlex.quote(f'data/{app}{rest}')}")
    return " ".join([*words, f"--model_save_path {shlex.quote(str(path))}"])


def settings_of(directory: str | Path) -> commands.Given:
    """The file in `config/` and the overrides by which `data_process.py` makes the data set of a directory.

    Where no file is for that directory, one may be for that without the prior that ends its name
    (`data/boutique-od`); else the directory alone is named.
    """
    wanted = Path(directory)
    plain, _, prior = wanted.name.rpartition("-")
    of_prior = [f"process.priors=[{prior}]", f"process.output_dir={wanted}"]
    ways = [(wanted, list[str]())]
    ways += [(wanted.with_name(plain), of_prior)] if plain and prior in BUILT_IN_PRIORS else []
    for made, overrides in ways:
        likely = CONFIGS / f"{made.name}.yaml"
        for path in dict.fromkeys([likely, *sorted(CONFIGS.glob("*.yaml"))]):
            if _makes(path, made):
                return str(path), overrides
    return commands.DEFAULT, [f"process.output_dir={wanted}"]


def _makes(config: Path, directory: Path) -> bool:
    try:
        return Path(load_settings(config).process.output_dir) == directory
    except SettingsError:
        return False
