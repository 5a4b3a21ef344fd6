"""How far `required` labels can be trusted: the fit against measurements, and against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscaler.labels.capacity import highest_utilisation
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.minutes import fitted_minutes, minute_means, top_utilisation, usable_minutes
from deepscaler.labels.regression import FEWEST_HOT, HOT
from deepscaler.labels.required import Labelled
from deepscaler.panel import MetricPanel
from deepscaler.statistics import nan_mean

Array = NDArray[np.float64]
RHO_EDGES = np.arange(0.0, 1.2001, 0.05)
"""Bounds of the bins in which minutes are counted by utilisation."""
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What the page of plots shows: M minutes of the training split, L rows of the whole series.

    Attributes:
        model: the fit.
        truth: the application's own demand and visits, where they are known (on the testbed).
        measured_cores: `[M, N]`; NaN outside the minutes that the fit rests on.
        fitted_cores: `[M, N]`; NaN likewise.
        measured_response: `[M]` mean response at the entries in seconds; NaN without traffic.
        predicted_response: `[M]` in seconds; NaN without a response fit.
        top_rho: `[M]` utilisation of the busiest service; -inf where unknown.
        hidden: `[M]` offered over observed rate.
        times: `[L]` seconds since the epoch.
        required_cores: `[L]` sum over the services of limits times labels; NaN where a service's label is
            unknown.
        recorded_cores: `[L]` the same with the pods that ran; NaN where a service's pods are unknown.
        raised: `[L, N]` 1 where the latency rule raised the label, 0 where ρ_max decided, NaN without a
            label.
        bounds: rows at which validation and test begin.
    """

    model: DemandModel
    truth: DemandModel | None
    measured_cores: Array
    fitted_cores: Array
    measured_response: Array
    predicted_response: Array
    top_rho: Array
    hidden: Array
    times: Array
    required_cores: Array
    recorded_cores: Array
    raised: Array
    bounds: tuple[int, int]

    @property
    def residuals(self) -> Array:
        """Measured minus fitted cores over the service's mean, `[M, N]`; NaN outside the fitted minutes."""
        mean = nan_mean(self.measured_cores, axis=0)
        return (self.measured_cores - self.fitted_cores) / np.where(mean > 0, mean, np.nan)

    @property
    def demand_error(self) -> Array | None:
        """Fitted over true CPU-seconds per request, minus 1, `[N]`; None where the truth isn't known."""
        return None if self.truth is None else self.model.demand_seconds / self.truth.demand_seconds - 1

    def summary(self) -> dict[str, Any]:
        """The figures behind the plots, as `labels.json` holds them; None where a figure is unknown."""
        return {
            "services": {name: self._service(index) for index, name in enumerate(self.model.services)},
            "response": self._response(),
            "hidden": self._hidden(),
            "saturation": self._saturation(),
            "labels": {
                "known_share": float(np.isfinite(self.raised).mean()),
                "raised_by_latency_share": _mean(self.raised),
                "required_cores": _mean(self.required_cores),
                "recorded_cores": _mean(self.recorded_cores[np.isfinite(self.required_cores)]),
            },
        }

    def _service(self, index: int) -> dict[str, Any]:
        """The fit of one service, beside the truth where that is known."""
        model, quality, name = self.model, self.model.quality, self.model.services[index]
        found = {
            "demand_ms": 1e3 * model.demand_seconds[index],
            "idle_millicores": 1e3 * model.idle_cores[index],
            "highest_utilisation": highest_utilisation(model, 1)[index],
            "visits": (model.external_share @ model.visits)[index],
            "explained_by_visits": quality.get("explained_by_visits", {}).get(name),
            "cpu_r2": quality.get("cpu_r2", {}).get(name),
            "minutes": quality.get("minutes", {}).get(name),
            "residual_quantiles": _quantiles(self.residuals[:, index]),
            "raised_by_latency_share": _mean(self.raised[:, index]),
        }
        if self.truth is not None:
            found["true_demand_ms"] = 1e3 * self.truth.demand_seconds[index]
            found["true_idle_millicores"] = 1e3 * self.truth.idle_cores[index]
            found["true_visits"] = (self.truth.external_share @ self.truth.visits)[index]
        return found

    def _response(self) -> dict[str, Any] | None:
        """The response fit and its errors; None without one."""
        fit = self.model.response
        if fit is None:
            return None
        fitted = (self.measured_response > 0) & (self.measured_response < 2 * self.model.sla_seconds)
        ratio = self.predicted_response[fitted] / self.measured_response[fitted]
        errors = self.model.quality.get("log_error", {})
        return {
            "form": fit.form,
            "r0_seconds": fit.r0,
            "kappa": fit.kappa,
            "held_out_log_error": errors,
            "predicted_over_measured_quantiles": _quantiles(ratio),
        }

    def _hidden(self) -> dict[str, Any]:
        """How much demand slow responses may have hidden."""
        known, sla = self.measured_response[np.isfinite(self.measured_response)], self.model.sla_seconds
        return {
            "think_seconds": self.model.think_seconds,
            "minutes_above_half_sla_share": _mean(known > sla / 2),
            "minutes_above_sla_share": _mean(known > sla),
            "largest_correction": float(self.hidden.max(initial=1.0)),
            "above_sla": "left out: no truth"
            if self.model.think_seconds is None
            else "corrected for waiting users",
        }

    def _saturation(self) -> dict[str, Any]:
        """How many minutes were how busy, and how many of them near saturation."""
        counts, _ = np.histogram(self.top_rho[np.isfinite(self.top_rho)], RHO_EDGES)
        hot = int(((self.top_rho > HOT[0]) & (self.top_rho < HOT[1])).sum())
        return {
            "rho_edges": np.round(RHO_EDGES, 2),
            "minutes": counts,
            "hot_minutes": hot,
            "hot_minutes_needed": FEWEST_HOT,
        }


def diagnose(
    labelled: Labelled, panel: MetricPanel, bounds: tuple[int, int], truth: DemandModel | None = None
) -> Diagnostics:
    """Compare the fit of `required` labels with the telemetry that it comes from.

    Args:
        labelled: `required` labels with the fit and its visits.
        panel: the whole series, with the features pod, cpu, req and res.
        bounds: rows at which validation and test begin.
        truth: the application's own model of the same services, where it is known.
    """
    model, labels, unrounded = labelled.model, labelled.labels, labelled.unrounded
    assert model is not None and unrounded is not None and labelled.visits is not None
    training = panel.between(-np.inf, float(panel.times[bounds[0] - 1]))
    minutes = minute_means(
        training, model.limit_cores, model.entry_columns, labelled.visits, model.ready_seconds
    )
    usable = usable_minutes(minutes, model.sla_seconds)
    use = fitted_minutes(minutes, usable)
    fitted = model.idle_cores * minutes.pod + model.demand_seconds * minutes.req
    _, external = labelled.visits.routed(minutes.times, minutes.req, model.entry_columns)
    total = external.sum(axis=1)
    per_request = minutes.req / np.where(total > 0, total, np.nan)[:, None]
    pods = np.where(minutes.pod > 0, minutes.pod, np.nan)
    recorded = panel.select(model.services, ("pod",)).feature("pod").astype(np.float64)
    return Diagnostics(
        model=model,
        truth=truth,
        measured_cores=np.where(use, minutes.cores, np.nan),
        fitted_cores=np.where(use, fitted, np.nan),
        measured_response=minutes.response,
        predicted_response=model.response_at(minutes.req, pods, per_request),
        top_rho=top_utilisation(model, minutes),
        hidden=model.correction(minutes.response),
        times=panel.times,
        required_cores=_total(labels.astype(np.float64), model.limit_cores),
        recorded_cores=_total(recorded, model.limit_cores),
        # the latency rule adds whole replicas; what ρ_max asks for is hardly ever a whole number
        raised=np.where(np.isfinite(labels), unrounded == labels, np.nan),
        bounds=bounds,
    )


def _total(replicas: Array, limits: Array) -> Array:
    """Cores `[L]` of the services whose replicas are ever known; NaN where those of one of them aren't."""
    ever = np.isfinite(replicas).any(axis=0)
    cores: Array = (replicas[:, ever] * limits[ever]).sum(axis=1)
    return cores if ever.any() else np.full(len(replicas), np.nan)


def _mean(values: ArrayLike) -> float | None:
    mean = nan_mean(values)
    return None if np.isnan(mean) else mean


def _quantiles(values: Array) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [float(value) for value in np.quantile(known, QUANTILES)] if len(known) else None
