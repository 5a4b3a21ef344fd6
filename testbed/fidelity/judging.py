"""Leave one out: each recorded run judged by what was fitted on the others, a process per fit."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

from deepscaler.settings import Settings
from testbed.applications.loading import APPS, load_application
from testbed.fidelity import report
from testbed.fidelity.fitting import Fields, Lab, Parameters, fit
from testbed.fidelity.records import Cell
from testbed.fidelity.replay import own_policy

TEST_SEED = 2000


def judge(cells: Sequence[Cell], settings: Settings, workers: int) -> tuple[list[report.Judged], Parameters]:
    """Each run, judged by the parameters of all others, and the parameters of all runs together."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet) as pool:
        whole = pool.submit(fit, cells, _lab(settings))
        folds = [pool.submit(_fold, cells, cell, settings) for cell in cells]
        judged = tqdm(folds, desc="fit", unit="run", disable=None, leave=False)
        return [fold.result() for fold in judged], whole.result()


def _quiet() -> None:
    """An HPA without metrics says so at the start of every run; here that is nobody's concern."""
    logging.getLogger("deepscaler").setLevel(logging.ERROR)


def _lab(settings: Settings) -> Lab:
    return Lab(settings, APPS / f"{settings.testbed.application}.yaml")


def _fold(cells: Sequence[Cell], left_out: Cell, settings: Settings) -> report.Judged:
    """One run, judged by the parameters of all others."""
    lab = _lab(settings)
    found = fit([cell for cell in cells if cell.name != left_out.name] or [left_out], lab)
    real = load_application(lab.base)
    guessed: Fields = {
        "extends": str(APPS / "boutique.yaml"),
        "think_seconds": [real.think_low, real.think_high],
    }
    own = lab.emulate([left_out], found, own=True, seed=TEST_SEED)[0] if own_policy(left_out) else None
    return report.Judged(
        cell=left_out,
        replayed=lab.emulate([left_out], found, seed=TEST_SEED)[0],
        own=own,
        shipped=lab.run([left_out], guessed, seed=TEST_SEED)[0],
        parameters=found,
    )
