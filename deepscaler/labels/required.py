"""Labels: the replicas (or the feature) that a network learns to foresee, a value a row and service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deepscaler.calls import CallGraph
from deepscaler.labels.demand import DemandModel, entry_response, requirements
from deepscaler.labels.fit import fit_demand, read_facts
from deepscaler.labels.visits import Visits, follow_visits
from deepscaler.panel import MetricPanel, trailing_means
from deepscaler.settings import Process, Settings

Array = NDArray[np.float64]
TRUSTED_VISITS = 0.8
"""Below this share of its requests explained by visits, a service's own rate is taken."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of a series and what they rest on.

    Attributes:
        labels: float32 `[L, N]`; NaN where unknown.
        unrounded: float32 `[L, N]`, `required` labels before they are rounded up; None with others.
        present: float32 `[L, N]`, what is known at each row of the requirement (see `present_requirements`); None with others.
        lead: seconds inside the label.
        model: the demand fit, its visits those of the last window; None without.
        visits: by window; None without.
    """

    labels: NDArray[np.float32]
    unrounded: NDArray[np.float32] | None = None
    present: NDArray[np.float32] | None = None
    lead: float = 0.0
    model: DemandModel | None = None
    visits: Visits | None = None


def make_labels(
    settings: Settings, panel: MetricPanel, calls: CallGraph | None, rows: int, bounds: tuple[int, int]
) -> Labelled:
    """The labels that `process.label` asks for; a `required` one never sees beyond its own split.

    Args:
        settings: of the application.
        panel: the whole series on a regular grid.
        calls: where recorded.
        rows: rows a step.
        bounds: rows at which validation and test begin; the demand is fitted on the rows before.

    Raises:
        DataError: the demand can't be fitted, saying what to collect.
    """
    process = settings.process
    if process.label != "required":
        return Labelled(
            feature_labels(
                panel, "pod" if process.label == "observed" else process.label.removeprefix("feature:"), rows
            )
        )
    facts = read_facts(
        Path(settings.collect.output_dir) / "workloads.json", panel.services, process.boot_seconds
    )
    training = panel.between(-np.inf, float(panel.times[bounds[0] - 1]))
    entries = [entry.service for entry in settings.app.entries]
    sla = min((entry.sla for entry in settings.app.entries), default=0.2)
    model = fit_demand(training, calls, facts, process, entries=entries, sla_seconds=sla)
    visits = follow_visits(panel, calls, model.entries, process.visit_window)
    model = replace(model, visits=visits.values[-1])  # the newest: what serves next
    labels, exact = label_requirements(model, visits, panel, process)
    for values in (labels, exact):
        hide_overhang(values, bounds, Reach.of(process, model.boot_seconds, panel.step))
    lead = float(np.max(facts.boot_seconds) + process.look_ahead) if process.lead else 0.0
    return Labelled(labels, exact, present_requirements(model, visits, panel, process), lead, model, visits)


@dataclass(frozen=True, eq=False)
class Reach:
    """Rows around *now* (a step before the label's row) whose rates a `required` label covers.

    Attributes:
        step: rows from now to the label's row.
        behind: rows before now, now included.
        ahead: `[N]` rows after now.
    """

    step: int
    behind: int
    ahead: NDArray[np.int64]

    @classmethod
    def of(cls, process: Process, boot_seconds: Array, base_step: float) -> Reach:
        """(now - look_back, now + boot + look_ahead], or (now - look_back, now] without a lead."""
        ahead = np.ceil((boot_seconds + process.look_ahead) / base_step - 1e-9).astype(np.int64)
        behind = max(int(np.ceil(process.look_back / base_step - 1e-9)), 1)
        return cls(round(process.step / base_step), behind, ahead if process.lead else np.zeros_like(ahead))


def offered_rates(
    model: DemandModel, visits: Visits, panel: MetricPanel, process: Process, *, causal: bool = False
) -> tuple[Array, Array]:
    """Offered requests per second `[L, N]` and visits per external request `[L, N]` at each row of a regular panel.

    Rates are means over `process.rate_window`, the entries' rate times visits, corrected for demand that slow responses
    hide. NaN where unknown: entries missing, or a response above the SLA under an open loop or unknown think time.

    Args:
        model, visits, panel, process: what labels are made from.
        causal: at each row only what is known by then: visits are as old as their window, instead of centred on the row.
    """
    if causal:
        visits = Visits(visits.times + process.visit_window, visits.values)
    part = panel.select(model.services, ("req", "res"))
    means = trailing_means(part, max(round(process.rate_window / panel.step), 1)).astype(np.float64)
    served, entries = means[:, :, 0], model.entry_columns
    response = entry_response(served[:, entries], means[:, entries, 1])
    rates, _ = visits.routed(part.times, served, entries)
    around = max(round(process.visit_window / panel.step), 1)
    rates = np.where(_explained(served, rates, around, not causal) < TRUSTED_VISITS, served, rates)
    rates *= model.correction(response)[:, None]
    if model.think_seconds is None:
        rates[response > model.sla_seconds] = np.nan
    per_request = np.einsum("e,wen->wn", model.external_share, visits.values)[visits.index_at(part.times)]
    return rates, per_request


def _explained(served: Array, routed: Array, rows: int, centred: bool) -> Array:
    """Share `[L, N]` of the requests in `rows` around (or up to) each row that the entries' rates account for; NaN without any."""
    known = np.isfinite(served) & np.isfinite(routed)
    seen, accounted = (
        pd.DataFrame(np.where(known, values, 0.0))
        .rolling(rows, center=centred, min_periods=1)
        .sum()
        .to_numpy(np.float64)
        for values in (served, routed)
    )
    share: Array = np.where(seen > 1e-9, accounted / np.maximum(seen, 1e-9), np.nan)
    return share


def required_labels(
    model: DemandModel, visits: Visits, panel: MetricPanel, process: Process
) -> NDArray[np.float32]:
    """The cheapest sufficient replicas `[L, N]` of the step that ends at each row; NaN where unknown.

    A controller at *now* takes the forecast one step on, so the label at now + step covers the highest rate over
    (now - look_back, now + boot + look_ahead] of each service.
    """
    return label_requirements(model, visits, panel, process)[0]


def label_requirements(
    model: DemandModel, visits: Visits, panel: MetricPanel, process: Process
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`required_labels`, and the same before they are rounded up (`deepscaler.labels.demand.requirements`), `[L, N]` each."""
    reach = Reach.of(process, model.boot_seconds, panel.step)
    rates, per_request = offered_rates(model, visits, panel, process)
    now = np.maximum(np.arange(len(panel)) - reach.step, 0)
    whole, exact = requirements(model, peaks(rates, reach), visits=per_request[now])
    return whole.astype(np.float32), exact.astype(np.float32)


def present_requirements(
    model: DemandModel, visits: Visits, panel: MetricPanel, process: Process
) -> NDArray[np.float32]:
    """The part of the next label that is known at each row `[L, N]`: the unrounded requirement of (now - look_back, now]."""
    reach = replace(
        Reach.of(process, model.boot_seconds, panel.step),
        step=0,
        ahead=np.zeros(len(model.services), np.int64),
    )
    rates, per_request = offered_rates(model, visits, panel, process, causal=True)
    return requirements(model, peaks(rates, reach), visits=per_request)[1].astype(np.float32)


def peaks(rates: Array, reach: Reach) -> Array:
    """Highest rate `[L, N]` over the rows of `reach`, by label row.

    NaN where a rate among them is, and where the rows ahead leave the series; rows behind its start are left out.
    """
    length = len(rates)
    out = np.full(rates.shape, np.nan)
    for ahead in np.unique(reach.ahead):
        columns = np.flatnonzero(reach.ahead == ahead)
        padded = np.vstack([np.full((reach.behind - 1, len(columns)), -np.inf), rates[:, columns]])
        width = reach.behind + int(ahead)
        if len(padded) < width:
            continue
        highest = sliding_window_view(padded, width, axis=0).max(axis=-1)  # [L - ahead, N], by row of now
        kept = max(min(len(highest), length - reach.step), 0)
        out[reach.step : reach.step + kept, columns] = highest[:kept]
    return out


def hide_overhang(labels: NDArray[np.float32], bounds: Sequence[int], reach: Reach) -> None:
    """Make NaN, in place, labels that cover rates beyond the end of their own split."""
    for column, ahead in enumerate(reach.ahead):
        over = int(ahead) - reach.step
        for bound in bounds:
            labels[max(bound - max(over, 0), 0) : bound, column] = np.nan


def feature_labels(panel: MetricPanel, feature: str, rows: int) -> NDArray[np.float32]:
    """Mean of a feature `[L, N]` over the step of `rows` samples that ends at each row; `observed` is that of `pod`."""
    return trailing_means(
        panel.select(panel.services, tuple(dict.fromkeys((feature, *_weight(panel, feature))))), rows
    )[:, :, 0]


def _weight(panel: MetricPanel, feature: str) -> tuple[str, ...]:
    return ("req",) if feature == "res" and "req" in panel.features else ()


def live_labels(meta: dict[str, Any], panel: MetricPanel, rows: int) -> Labelled:
    """Labels of recent metrics as a bundle's data set made them; NaN where they aren't complete yet or can't be told.

    Args:
        meta: of the bundle: label, demand, settings of the processing.
        panel: raw samples of the bundle's services in its order, regular.
        rows: samples a step.
    """
    label = str(meta["label"])
    feature = "pod" if label == "observed" else label.removeprefix("feature:")
    if label == "required" and meta.get("demand") is not None and {"req", "res"} <= set(panel.features):
        model, process = DemandModel.from_dict(meta["demand"]), Process.model_validate(meta["settings"])
        visits = Visits(panel.times[-1:], model.visits[None])  # the newest: what serves next
        labels, exact = label_requirements(model, visits, panel, process)
        return Labelled(labels, exact, present_requirements(model, visits, panel, process))
    if label != "required" and feature in panel.features:
        return Labelled(feature_labels(panel, feature, rows))
    return Labelled(np.full((len(panel), len(panel.services)), np.nan, np.float32))
