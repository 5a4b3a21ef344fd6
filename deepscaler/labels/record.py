"""The demands fitted to one run, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import DataError
from deepscaler.labels.demand import WARM_UP, DemandModel
from deepscaler.labels.facts import DEFAULT_BOOT_SECONDS, Facts
from deepscaler.labels.fit import fit_demand
from deepscaler.runs import Run
from deepscaler.settings import Settings

BORROWED = "response_of_another_fit"
"""Key of `DemandModel.quality`: the response wasn't fitted to this run."""


def fitted_to(run: Run, settings: Settings, known: DemandModel | None = None) -> DemandModel:
    """The demand model of a run: its CPU, requests and responses.

    Args:
        run: with metrics.
        settings: of the application.
        known: a fit to other data, such as the bundle's: it gives the start-up times that
            `process.boot_seconds` doesn't, idle cores and how long replicas are slow at first where the run
            doesn't tell, and the response where the run has too few busy minutes for one.

    Raises:
        DataError: no metrics were recorded, or too few for a fit.
    """
    if run.panel is None:
        raise DataError("metrics.csv: no such file, so demands can't be fitted to the run")
    requests = run.info.get("requests") or {}
    limits = [run.info["limits"].get(name) or requests.get(name) or np.nan for name in run.panel.services]
    boots = dict.fromkeys(run.panel.services, DEFAULT_BOOT_SECONDS)
    if known is not None:
        boots |= dict(zip(known.services, known.ready_seconds.tolist(), strict=True))
    boots |= settings.process.boot_seconds
    found = fit_demand(
        run.panel,
        None,
        Facts(np.array(limits, np.float64), np.array([boots[name] for name in run.panel.services])),
        settings.process,
        entries=[entry.service for entry in settings.app.entries],
        sla_seconds=min(run.info["sla"].values()),
        idle_before=None if known is None else _idle(known, run.panel.services),
        slo_seconds=min((entry.slo for entry in settings.app.entries), default=None),
    )
    if known is None:
        return found
    found = as_slow_at_first(found, known)
    if found.response is None:
        return replace(found, response=known.response, quality={**found.quality, BORROWED: True})
    return found


def _idle(known: DemandModel, services: Sequence[str]) -> NDArray[np.float64]:
    """Its idle cores `[N]` in the order of these services; NaN for one that it doesn't have."""
    idle = dict(zip(known.services, known.idle_cores.tolist(), strict=True))
    return np.array([idle.get(name, np.nan) for name in services], np.float64)


def as_slow_at_first(found: DemandModel, known: DemandModel) -> DemandModel:
    """The fit with new replicas as slow as in `known` where it has none that are."""
    before, slow = known.quality.get(WARM_UP, {}), dict(found.quality[WARM_UP])
    taken = {name: before[name] for name in found.services if not slow.get(name) and before.get(name)}
    boots = found.boot_seconds + np.array([taken.get(name, 0.0) for name in found.services])
    return replace(found, boot_seconds=boots, quality={**found.quality, WARM_UP: {**slow, **taken}})
