"""What earlier controllers decided lately, on this node or on another one."""

from __future__ import annotations

import logging
import math

import pandas as pd

from deepscaler.adapters.deadline import sharing
from deepscaler.artefacts import utc_text
from deepscaler.cluster import Cluster
from deepscaler.control.recorder import Recorder
from deepscaler.errors import MetricsError
from deepscaler.policies.base import Reason

log = logging.getLogger(__name__)


def earlier_decisions(cluster: Cluster, recorder: Recorder, window: float, seconds: float) -> pd.DataFrame:
    """Decisions of the last `window` seconds, with their times by the steady clock.

    decisions.csv tells only what was decided on this node, the store of metrics what was recommended on
    whatever node. What both tell counts once, because the highest recommendation does.

    Args:
        cluster: knows the store.
        recorder: knows decisions.csv.
        window: seconds.
        seconds: that asking the store may take.
    """
    now, steady = cluster.now(), cluster.steady()
    rows = recorder.recent(now - window)
    ahead = rows["time"] > now
    if ahead.any():
        newest = utc_text(float(rows["time"].max()))
        log.warning("%d earlier decisions are of the future, up to %s: left out", ahead.sum(), newest)
    with sharing(seconds):
        earlier = pd.concat([*_stored(cluster, now - window, now), rows[~ahead]])
    return earlier.assign(time=earlier["time"] - (now - steady))


def _stored(cluster: Cluster, start: float, end: float) -> list[pd.DataFrame]:
    """What the store of metrics tells; nothing if it doesn't."""
    try:
        stored = cluster.past_decisions(start, end)
    except MetricsError as error:
        log.warning("what was decided lately is known from decisions.csv alone: %s", error)
        return []
    if stored.empty:
        return []
    log.info("%d recommendations of the last %g s are taken over", len(stored), end - start)
    return [stored.assign(floor=math.nan, target=stored["current"], reason=Reason.FORECAST.value)]
