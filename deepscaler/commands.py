"""The commands that messages tell people to run are complete: they name the settings that were given here.

A message says `python data_process.py`; where this process was given other settings than the default, what
people read is `python data_process.py --config config/demo.yaml`. Errors and logs go through `complete`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

DEFAULT = "config/boutique.yaml"
"""The settings that scripts read if they aren't given others."""
SECTIONS = ("app", "collect", "process", "testbed")
"""Overrides of these say what is made, so commands repeat them; none of them is a secret."""
Given = tuple[str, Sequence[str]]
"""The file of `--config`, and the overrides of `--set`."""
_STAGE = re.compile(
    r"\bpython[ ](metrics_fetch|data_process|predict_scale|similarity|calculate)\.py\b(?! --config\b)"
)
_TRAINING = re.compile(r"\bpython[ ]main\.py\b(?! --(?:model_name|model_config_path|data_dir|rollback)\b)")


def _default() -> Given:
    return DEFAULT, ()


def _bare() -> str:
    return "python main.py"


_given: Callable[[], Given] = _default
_training: Callable[[], str] = _bare


def remember(given: Callable[[], Given] = _default, training: Callable[[], str] = _bare) -> None:
    """From now on commands in messages are for this.

    Args:
        given: tells the settings; it is asked when a message has a command.
        training: tells the command that trains on what they say.
    """
    global _given, _training
    _given, _training = given, training


def complete(text: str) -> str:
    """The text, with what its commands lack; those that are complete stay as they are."""
    if "python " not in text:
        return text
    return _TRAINING.sub(lambda _: _training(), _STAGE.sub(lambda found: found[0] + _flags(), text))


def _flags() -> str:
    config, overrides = _given()
    words = [] if config == DEFAULT else ["--config", config]
    for override in overrides:
        words += ["--set", override] if override.partition(".")[0] in SECTIONS else []
    return "".join(f" {shlex.quote(word)}" for word in words)
