"""Labels: the replicas (or the feature) that a network learns to foresee, one value per row and service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deepscaler.calls import CallGraph
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.facts import read_facts
from deepscaler.labels.fit import fit_demand
from deepscaler.labels.history import known_rates, offered_history
from deepscaler.labels.offered import offered_rates
from deepscaler.labels.rule import requirements
from deepscaler.labels.visits import Visits, follow_visits
from deepscaler.panel import MetricPanel, trailing_means
from deepscaler.settings import Process, Settings

Array = NDArray[np.float64]
FITTED = ("required", "offered")
"""Labels that rest on a demand fit."""
Labels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of a series and what they rest on; labels other than `required` bring nothing else.

    Attributes:
        labels: float32 `[L, N]`; NaN where unknown.
        unrounded: float32 `[L, N]`, the labels before they are rounded up.
        present: float32 `[L, N]`, the part of the next label that is known at each row
            (`present_requirements`).
        lead: seconds of the future that a label covers beyond *now*; 0 where it covers none.
        model: the demand fit, with the visits of the last window.
        visits: of all windows.
    """

    labels: Labels
    unrounded: Labels | None = None
    present: Labels | None = None
    lead: float = 0.0
    model: DemandModel | None = None
    visits: Visits | None = None


def make_labels(
    settings: Settings, panel: MetricPanel, calls: CallGraph | None, rows: int, bounds: tuple[int, int]
) -> Labelled:
    """The labels that `process.label` asks for. A `required` label never sees beyond its own split.

    Args:
        settings: of the application.
        panel: the whole series on a regular grid.
        calls: recorded calls; None without.
        rows: rows per step.
        bounds: rows at which validation and test begin; the demand is fitted on the rows before validation.

    Raises:
        DataError: the demand can't be fitted; it says what to collect.
    """
    process = settings.process
    if process.label not in FITTED:
        return Labelled(feature_labels(panel, _labelled_feature(process.label), rows))
    workloads = Path(settings.collect.output_dir) / "workloads.json"
    facts = read_facts(workloads, panel.services, process.boot_seconds)
    training = panel.between(-np.inf, float(panel.times[bounds[0] - 1]))
    entries = [entry.service for entry in settings.app.entries]
    sla = min((entry.sla for entry in settings.app.entries), default=0.2)
    slo = min((entry.slo for entry in settings.app.entries), default=None)
    model = fit_demand(training, calls, facts, process, entries=entries, sla_seconds=sla, slo_seconds=slo)
    visits = follow_visits(panel, calls, model.entries, process.visit_window)
    model = replace(model, visits=visits.values[-1])  # the newest ones: future load is routed by them
    if process.label == "offered":
        return Labelled(known_rates(model, panel).astype(np.float32), model=model, visits=visits)
    labels, unrounded = label_requirements(model, visits, panel, process)
    for values in (labels, unrounded):
        hide_overhang(values, bounds, Reach.of(process, model.boot_seconds, panel.step))
    lead = float(np.max(facts.boot_seconds) + process.look_ahead) if process.lead else 0.0
    present = present_requirements(model, visits, panel, process)
    return Labelled(labels, unrounded, present, lead, model, visits)


@dataclass(frozen=True, eq=False)
class Reach:
    """The rows whose rates a `required` label covers, counted from *now*, one step before the label's row.

    Attributes:
        step: rows from now to the label's row.
        behind: rows up to now, now included.
        ahead: `[N]` rows after now, by service.
    """

    step: int
    behind: int
    ahead: NDArray[np.int64]

    @classmethod
    def of(cls, process: Process, boot_seconds: Array, base_step: float) -> Reach:
        """The rows in (now - look_back, now + boot + look_ahead]; without a lead up to *now* only.

        Args:
            process: settings of the labels.
            boot_seconds: `[N]` start-up times.
            base_step: seconds between rows.
        """
        ahead = np.ceil((boot_seconds + process.look_ahead) / base_step - 1e-9).astype(np.int64)
        behind = max(int(np.ceil(process.look_back / base_step - 1e-9)), 1)
        return cls(round(process.step / base_step), behind, ahead if process.lead else np.zeros_like(ahead))


def required_labels(model: DemandModel, visits: Visits, panel: MetricPanel, process: Process) -> Labels:
    """The cheapest sufficient replicas `[L, N]` of the step that ends at each row; NaN where unknown.

    A controller at *now* takes the forecast for one step later, so the label at now + step covers the
    highest rate of each service over (now - look_back, now + boot + look_ahead].
    """
    return label_requirements(model, visits, panel, process)[0]


def label_requirements(
    model: DemandModel, visits: Visits, panel: MetricPanel, process: Process
) -> tuple[Labels, Labels]:
    """The `required_labels`, and the same before they are rounded up (see `requirements`), `[L, N]` each."""
    reach = Reach.of(process, model.boot_seconds, panel.step)
    rates, per_request = offered_rates(model, visits, panel, process)
    now = np.maximum(np.arange(len(panel)) - reach.step, 0)
    whole, unrounded = requirements(model, peaks(rates, reach), visits=per_request[now])
    return whole.astype(np.float32), unrounded.astype(np.float32)


def present_requirements(model: DemandModel, visits: Visits, panel: MetricPanel, process: Process) -> Labels:
    """What is known of the next label at the row *now* `[L, N]`.

    That is the unrounded requirement of the highest rate over (now - look_back, now]; NaN where unknown.
    """
    reach = replace(
        Reach.of(process, model.boot_seconds, panel.step),
        step=0,
        ahead=np.zeros(len(model.services), np.int64),
    )
    rates, per_request = offered_rates(model, visits, panel, process, causal=True)
    return requirements(model, peaks(rates, reach), visits=per_request)[1].astype(np.float32)


def peaks(rates: Array, reach: Reach) -> Array:
    """Highest rate `[L, N]` over the rows that the label at each row covers.

    NaN where one of these rates is NaN, and where the rows ahead leave the series; rows before its start
    are left out.
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


def hide_overhang(labels: Labels, bounds: Sequence[int], reach: Reach) -> None:
    """Set labels that cover rates beyond the end of their own split to NaN, in place.

    Args:
        labels: float32 `[L, N]`.
        bounds: rows at which the splits after the first begin.
        reach: the rows that a label covers.
    """
    for column, ahead in enumerate(reach.ahead):
        over = int(ahead) - reach.step
        for bound in bounds:
            labels[max(bound - max(over, 0), 0) : bound, column] = np.nan


def feature_labels(panel: MetricPanel, feature: str, rows: int) -> Labels:
    """Mean of a feature `[L, N]` over the step of `rows` samples that ends at each row; NaN where unknown.

    A mean response is weighted by requests, where these are known.
    """
    weight = ("req",) if feature == "res" and "req" in panel.features else ()
    return trailing_means(panel.select(panel.services, (feature, *weight)), rows)[:, :, 0]


def _labelled_feature(label: str) -> str:
    """The feature that a label other than `required` is the mean of: `observed` is that of `pod`."""
    return "pod" if label == "observed" else label.removeprefix("feature:")


def live_labels(meta: dict[str, Any], panel: MetricPanel, rows: int) -> Labelled:
    """Labels of recent metrics, made as those of a bundle's data set were.

    They are NaN where what they cover isn't over yet, or where the metrics don't tell them.

    Args:
        meta: the bundle's description: label, demand and settings of the processing.
        panel: raw regular samples of the bundle's services in its order.
        rows: samples per step.
    """
    label = str(meta["label"])
    feature = _labelled_feature(label)
    if label == "required" and meta.get("demand") is not None and {"req", "res"} <= set(panel.features):
        model, process = DemandModel.from_dict(meta["demand"]), Process.model_validate(meta["settings"])
        visits = Visits(panel.times[-1:], model.visits[None])
        labels, unrounded = label_requirements(model, visits, panel, process)
        return Labelled(labels, unrounded, present_requirements(model, visits, panel, process))
    if label == "offered" and meta.get("demand") is not None and {"req", "res"} <= set(panel.features):
        rates = offered_history(DemandModel.from_dict(meta["demand"]), panel)
        if rates is not None:
            return Labelled(rates.astype(np.float32))
    if label not in FITTED and feature in panel.features:
        return Labelled(feature_labels(panel, feature, rows))
    return Labelled(np.full((len(panel), len(panel.services)), np.nan, np.float32))


def live_reach(meta: dict[str, Any], step: float, rows: int) -> tuple[int, int] | None:
    """How many rows before and after a row its `live_labels` depend on; None: on any.

    Args:
        meta: the bundle's description.
        step: seconds between samples.
        rows: samples per step.
    """
    if str(meta["label"]) == "offered":
        return None
    if str(meta["label"]) != "required" or meta.get("demand") is None:
        return rows, 0
    model, process = DemandModel.from_dict(meta["demand"]), Process.model_validate(meta["settings"])
    reach = Reach.of(process, model.boot_seconds, step)
    around = max(round(process.visit_window / step), round(process.rate_window / step), 1)
    return around + reach.behind + reach.step, around // 2 + 1 + int(reach.ahead.max(initial=0))
