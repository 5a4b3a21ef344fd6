"""What services need: CPU demand, visits and response, and the `required` rule. The fit is in `deepscaler.labels.fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import plain
from deepscaler.errors import DataError
from deepscaler.panel import MetricPanel

Array = NDArray[np.float64]

FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "random": lambda rho, n: rho / (1 - rho),
    "shared": lambda rho, n: rho / (n * (1 - rho)),
    "least_request": lambda rho, n: rho ** (np.sqrt(2 * (n + 1)) - 1) / (n * (1 - rho)),
}
"""g(ρ, n): waiting of one service with n replicas at utilisation ρ, in service times.

Source: M/M/1 a replica (random balancing); one pooled server; Sakasegawa 1977, M/M/n (least request).
"""
MAX_ADDED = 200
"""Replicas that the latency rule may add in all to one row."""
LEAST_ROOM = 0.05
"""Share of the limit that a replica has for requests at least, however much the fit calls idle."""
LEAST_UNROUNDED = 0.01
"""The unrounded requirement is never below this many replicas, so that its logarithm and its ratios exist."""


@dataclass(frozen=True)
class Response:
    """Entry response `R = r0 + κ Σ_i (v_i s_i / limit_i) g(ρ_i, n_i)`; `form` names g, a key of `FORMS`."""

    r0: float
    kappa: float
    form: str


@dataclass(frozen=True, eq=False)
class DemandModel:
    """The fit of MODEL: demand, visits, response, and the settings of the rule. Travels in data set and bundle.

    Attributes:
        idle_cores: a, `[N]` cores a ready replica uses without load; NaN where a service's CPU was never seen.
        demand_seconds: s, `[N]` CPU-seconds a request; NaN likewise.
        limit_cores, boot_seconds: `[N]`.
        entries: E services that requests enter at.
        visits: `[E, N]` requests served by each service per external request at each entry.
        external_share: `[E]` share of each entry in the external requests.
        sla_seconds: bound on the entry mean response (request-weighted over the entries).
        think_seconds: think time of a closed loop; None where the load is open.
        response: None where the data didn't support it.
        quality: fit diagnostics, plain numbers.
        requests_per_think: entry requests between two thinks.
        unloaded_seconds: entry response without load; None: the response fit's r0.
    """

    services: tuple[str, ...]
    idle_cores: Array
    demand_seconds: Array
    limit_cores: Array
    boot_seconds: Array
    entries: tuple[str, ...]
    visits: Array
    external_share: Array
    sla_seconds: float
    think_seconds: float | None
    rho_max: float
    sla_margin: float
    response: Response | None
    quality: dict[str, Any]
    requests_per_think: float = 1.0
    unloaded_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; NaN is None."""
        out: dict[str, Any] = plain(
            {item.name: getattr(self, item.name) for item in fields(self) if item.name != "response"}
        )
        return {**out, "response": None if self.response is None else asdict(self.response)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DemandModel:
        """The inverse of `to_dict`.

        Raises:
            DataError: a part is missing or unknown.
        """
        out = dict(data)
        try:
            for name in (
                "idle_cores",
                "demand_seconds",
                "limit_cores",
                "boot_seconds",
                "visits",
                "external_share",
            ):
                out[name] = np.array(out[name], np.float64)
            out["services"], out["entries"] = tuple(out["services"]), tuple(out["entries"])
            out["response"] = None if out["response"] is None else Response(**out["response"])
            return cls(**out)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"demand fit: broken ({error}); make it again with: python data_process.py"
            ) from error

    @property
    def entry_columns(self) -> list[int]:
        """Columns of the entries among the services."""
        return [self.services.index(name) for name in self.entries]

    @property
    def unloaded(self) -> float:
        """R0: entry response without load, s; 0 where unknown."""
        if self.unloaded_seconds is not None:
            return self.unloaded_seconds
        return self.response.r0 if self.response else 0.0

    def correction(self, response: Array) -> Array:
        """Offered over observed rate at an entry response of `response` s; NaN (no traffic) gives 1.

        A user of a closed loop who waits asks less: a cycle of one think and m requests takes Z + m R instead of
        Z + m R0. Never below 1; always 1 for an open loop.
        """
        if self.think_seconds is None:
            return np.ones_like(response)
        tasks = self.requests_per_think
        factor: Array = np.fmax(
            (self.think_seconds + tasks * response) / (self.think_seconds + tasks * self.unloaded), 1.0
        )
        return factor

    def response_at(self, rates: Array, replicas: Array, visits: Array | None = None) -> Array:
        """Predicted entry response `[L]` in s at rates and replicas `[L, N]`; NaN without a response fit.

        `visits`, `[L, N]` or `[N]` per external request, where they differ from the model's.
        """
        if self.response is None:
            return np.full(len(rates), np.nan)
        waits: Array = np.nansum(_Waits(self, rates, visits).at(replicas), axis=1)
        return self.response.r0 + waits


def external_rates(visits: Array, entries: list[int], rates: Array) -> Array:
    """External requests per second `[..., E]` behind served rates `[..., N]`; entries may call one another."""
    among = visits[:, entries]
    inverse = 1.0 / np.maximum(among, 1.0) if len(entries) == 1 else np.linalg.pinv(among)
    return np.maximum(rates[..., entries] @ inverse, 0.0)


class _Waits:
    """The waiting part κ v_i s_i / limit_i g(ρ_i, n_i) of each service, `[L, N]`; NaN where demand or rate is."""

    def __init__(self, model: DemandModel, rates: Array, visits: Array | None) -> None:
        assert model.response is not None
        if visits is None:
            visits = model.external_share @ model.visits
        self.weight = np.broadcast_to(
            model.response.kappa * visits * model.demand_seconds / model.limit_cores, rates.shape
        )
        self.base = np.broadcast_to(model.idle_cores / model.limit_cores, rates.shape)
        self.load = model.demand_seconds * rates / model.limit_cores
        self.form = FORMS[model.response.form]

    def at(self, replicas: Array, where: tuple[NDArray[np.int64], ...] | None = None) -> Array:
        """At `replicas`: for all rows and services, or for the pairs `where`."""
        weight, base, load = (
            part if where is None else part[where] for part in (self.weight, self.base, self.load)
        )
        rho = np.clip(base + load / replicas, 0.0, 0.999)
        waits: Array = weight * self.form(rho, replicas)
        return waits


def required_replicas(
    model: DemandModel, rates: Array, rho_max: float | None = None, *, visits: Array | None = None
) -> Array:
    """The cheapest replicas `[L, N]` that meet the SLA at service request rates `[L, N]` (NaN rates give NaN).

    Args:
        model: the fit.
        rates: offered requests per second of each service.
        rho_max: highest utilisation of the limit; the model's by default.
        visits: `[L, N]` or `[N]` visits per external request, where they differ from the model's.
    """
    return requirements(model, rates, rho_max, visits=visits)[0]


def requirements(
    model: DemandModel, rates: Array, rho_max: float | None = None, *, visits: Array | None = None
) -> tuple[Array, Array]:
    """`required_replicas`, and the same before they are rounded up, at least `LEAST_UNROUNDED`: `[L, N]` each; arguments of the former.

    Rounding the second up gives the first: where the latency rule added replicas, they are given as they are.
    """
    rates = np.asarray(rates, np.float64)
    room = (model.rho_max if rho_max is None else rho_max) * model.limit_cores - model.idle_cores
    room = np.maximum(room, LEAST_ROOM * model.limit_cores)
    exact = np.maximum(model.demand_seconds * rates / room, LEAST_UNROUNDED)
    by_rho = np.maximum(np.ceil(exact - 1e-9), 1.0)
    replicas = by_rho.copy()
    if model.response is not None:
        _relieve(model, rates, visits, replicas)
    return replicas, np.where(replicas > by_rho, replicas, exact)


def _relieve(model: DemandModel, rates: Array, visits: Array | None, replicas: Array) -> None:
    """Add to `replicas`, in place, where it shortens the response most per core, until R <= margin · SLA.

    An SLA below the unloaded response can't be bought with replicas: nothing is added.
    """
    assert model.response is not None
    budget = model.sla_margin * model.sla_seconds - model.response.r0
    if budget <= 0:
        return
    waits = _Waits(model, rates, visits)
    now = np.nan_to_num(waits.at(replicas))
    gain = np.nan_to_num((now - waits.at(replicas + 1)) / model.limit_cores)
    rows = np.flatnonzero(now.sum(axis=1) > budget)
    for _ in range(MAX_ADDED):
        if not len(rows):
            return
        best = gain[rows].argmax(axis=1)
        where = (rows, best)
        replicas[where] += 1
        now[where] = waits.at(replicas[where], where)
        gain[where] = (now[where] - waits.at(replicas[where] + 1, where)) / model.limit_cores[best]
        rows = rows[now[rows].sum(axis=1) > budget]


def present_requirement(model: DemandModel, panel: MetricPanel, seconds: float, rho_max: float) -> Array:
    """Replicas `[N]` the rule asks for at the demand-corrected rate of the last `seconds`; NaN where data is missing.

    A service's rate is the larger of its own and of what the entries' rate makes it by visits (which runs ahead of
    its own while a bottleneck upstream holds requests back). Order is the model's; services are matched by name.

    Args:
        model: the fit.
        panel: raw samples up to now with the features req and res.
        seconds: stretch up to the newest sample.
        rho_max: highest utilisation of the limit.
    """
    recent = panel.times > panel.times[-1] - seconds if len(panel) else np.zeros(0, bool)
    known = {name: index for index, name in enumerate(panel.services)}
    columns = [known.get(name, -1) for name in model.services]
    present = np.array(columns) >= 0
    own = np.where(present, _mean(panel.feature("req")[recent][:, columns]), np.nan)
    entries = model.entry_columns
    served = panel.feature("req")[recent][:, columns][:, entries].astype(np.float64)
    response = entry_response(served, panel.feature("res")[recent][:, columns][:, entries].astype(np.float64))
    factor = float(model.correction(_pool(response, np.nansum(served, axis=1))))
    routed = external_rates(model.visits, entries, own) @ model.visits
    rates = np.where(np.isnan(own), np.nan, np.fmax(own, routed)) * factor
    needed: Array = required_replicas(model, rates[None], rho_max)[0]
    return needed


def entry_response(served: Array, response: Array) -> Array:
    """Request-weighted mean response `[L]` over the entries, from `[L, E]`; NaN without traffic."""
    known = np.isfinite(served) & np.isfinite(response) & (served > 0)
    weight = np.where(known, served, 0.0)
    total = weight.sum(axis=1)
    summed = (weight * np.where(known, response, 0.0)).sum(axis=1)
    means: Array = np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)
    return means


def requirement_from_usage(panel: MetricPanel, seconds: float, rho_max: float) -> Array:
    """Replicas `[N]` that would bring the cores used in the last `seconds` to ρ_max of their limits; NaN where missing.

    cores / (ρ_max · limit) with cores = cpu · limit · pod: the limit cancels. In the panel's order.
    """
    recent = panel.times > panel.times[-1] - seconds if len(panel) else np.zeros(0, bool)
    used = _mean(panel.feature("cpu")[recent] * panel.feature("pod")[recent])
    return np.maximum(np.ceil(used / rho_max - 1e-6), 1.0)


def _mean(values: NDArray[np.float32]) -> Array:
    """Mean over rows, NaN left out; NaN where there is nothing."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _pool(values: Array, weights: Array) -> Array:
    known = np.isfinite(values) & (weights > 0)
    total = weights[known].sum()
    return np.asarray((values[known] * weights[known]).sum() / total if total > 0 else np.nan)
