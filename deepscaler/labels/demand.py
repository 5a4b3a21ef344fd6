"""What services need: CPU demand, visits and response, as fitted by `deepscaler.labels.fit`.

How replicas follow from it is in `deepscaler.labels.rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import plain
from deepscaler.errors import DataError

Array = NDArray[np.float64]
Rows = tuple[NDArray[np.int64], ...]

FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "random": lambda rho, n: rho / (1 - rho),
    "shared": lambda rho, n: rho / (n * (1 - rho)),
    "least_request": lambda rho, n: rho ** (np.sqrt(2 * (n + 1)) - 1) / (n * (1 - rho)),
}
"""g(ρ, n): how long a request waits at a service with n replicas at utilisation ρ, in service times.

Source: one M/M/1 queue per replica (random balancing); one pooled server; Sakasegawa 1977, M/M/n (least
request).
"""
WARM_UP = "warm_up_seconds"
"""Key of `DemandModel.quality`: service -> seconds for which a replica that is ready is slow."""
ARRAYS = ("idle_cores", "demand_seconds", "limit_cores", "boot_seconds", "visits", "external_share")


@dataclass(frozen=True)
class Response:
    """The entry response `R = r0 + κ Σ_i (v_i s_i / limit_i) g(ρ_i, n_i)`.

    Attributes:
        r0: response without load, in seconds.
        kappa: κ, how much of the predicted waiting shows in the response.
        form: the name of g, a key of `FORMS`.
    """

    r0: float
    kappa: float
    form: str


@dataclass(frozen=True, eq=False)
class DemandModel:
    """What was fitted, and the settings of the rule that it is used with. A data set and a bundle carry it.

    Attributes:
        services: N names.
        idle_cores: a, `[N]` cores that a ready replica uses without load; NaN where a service's CPU was
            never seen.
        demand_seconds: s, `[N]` CPU-seconds per request; NaN where a service's CPU was never seen.
        limit_cores: `[N]` CPU limit of a replica.
        boot_seconds: `[N]` time until a new replica is ready and serves as the others do.
        entries: the E services at which requests enter the application.
        visits: `[E, N]` requests that each service serves per external request at each entry.
        external_share: `[E]` share of each entry in the external requests.
        sla_seconds: bound on the mean response at the entries (weighted by requests).
        think_seconds: think time of a closed loop; None where the load is open.
        rho_max: highest utilisation of the limit that the rule allows.
        sla_margin: share of the SLA that the predicted response may reach.
        response: None where the data didn't support a fit.
        quality: fit diagnostics, plain numbers.
        requests_per_think: entry requests between two thinks.
        unloaded_seconds: entry response without load; None means the r0 of `response`.
        spare_cores: `[N]` cores that the replicas of a service keep free together near saturation
            (`deepscaler.labels.capacity`); None: `rho_max` alone decides.
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
    spare_cores: Array | None = None

    def to_dict(self) -> dict[str, Any]:
        """The model as plain lists and numbers, NaN as None."""
        left_out = {"response"} if self.spare_cores is not None else {"response", "spare_cores"}
        parts = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in left_out}
        return {**plain(parts), "response": None if self.response is None else asdict(self.response)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DemandModel:
        """The inverse of `to_dict`.

        Raises:
            DataError: a part is missing, unknown or no number.
        """
        out = dict(data)
        try:
            arrays = ARRAYS if out.get("spare_cores") is None else (*ARRAYS, "spare_cores")
            out.update({name: np.array(out[name], np.float64) for name in arrays})
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
    def among_entries(self) -> Array:
        """`[E, E]` requests that each entry serves per external request at each entry."""
        among: Array = self.visits[:, self.entry_columns]
        return among

    @property
    def ready_seconds(self) -> Array:
        """`[N]` time until a new replica is ready, however slow it is at first."""
        slow = self.quality.get(WARM_UP, {})
        ready: Array = self.boot_seconds - np.array([slow.get(name) or 0.0 for name in self.services])
        return ready

    @property
    def unloaded(self) -> float:
        """R0: entry response without load, in seconds; 0 where unknown."""
        if self.unloaded_seconds is not None:
            return self.unloaded_seconds
        return self.response.r0 if self.response else 0.0

    def correction(self, response: Array) -> Array:
        """Offered over observed rate at an entry response of `response` seconds; 1 where that is NaN.

        A user of a closed loop who waits asks less: a cycle of one think and m requests takes Z + m R
            instead of
        Z + m R0. The factor is never below 1, and always 1 for an open loop.
        """
        if self.think_seconds is None:
            return np.ones_like(response)
        tasks = self.requests_per_think
        factor: Array = np.fmax(
            (self.think_seconds + tasks * response) / (self.think_seconds + tasks * self.unloaded), 1.0
        )
        return factor

    @property
    def usual_shares(self) -> Array:
        """`[N]` requests of each service per request that the entries serve, at the usual mix."""
        usual = self.external_share @ self.visits
        served = float(usual[self.entry_columns].sum())
        return usual / served if served > 0 else np.zeros_like(usual)

    def response_at(self, rates: Array, replicas: Array, visits: Array | None = None) -> Array:
        """The predicted entry response `[L]` in seconds; NaN without a response fit.

        Args:
            rates: `[L, N]` requests per second of each service.
            replicas: `[L, N]`.
            visits: `[L, N]` or `[N]` visits per external request, where they differ from the model's.
        """
        if self.response is None:
            return np.full(len(rates), np.nan)
        waits: Array = np.nansum(Waits(self, rates, visits).at(replicas), axis=1)
        return self.response.r0 + waits


class Waits:
    """The waiting part κ v_i s_i / limit_i g(ρ_i, n_i) of the entry response, by service.

    Replicas are given later and may change, all else is computed once. NaN where demand or rate is.
    """

    def __init__(self, model: DemandModel, rates: Array, visits: Array | None) -> None:
        """Prepare for `rates` and `visits` (see `DemandModel.response_at`); `model` has a response fit."""
        assert model.response is not None
        if visits is None:
            visits = model.external_share @ model.visits
        self.weight = np.broadcast_to(
            model.response.kappa * visits * model.demand_seconds / model.limit_cores, rates.shape
        )
        self.base = np.broadcast_to(model.idle_cores / model.limit_cores, rates.shape)
        self.load = model.demand_seconds * rates / model.limit_cores
        self.form = FORMS[model.response.form]

    def at(self, replicas: Array, where: Rows | None = None) -> Array:
        """Waiting in seconds, `[L, N]` at `replicas` of that shape, or `[K]` at those of K pairs `where`.

        Args:
            replicas: `[L, N]` or `[K]`.
            where: rows `[K]` and columns `[K]` of the pairs; None means all.
        """
        weight, base, load = (
            part if where is None else part[where] for part in (self.weight, self.base, self.load)
        )
        rho = np.clip(base + load / replicas, 0.0, 0.999)
        waits: Array = weight * self.form(rho, replicas)
        return waits


def external_rates(visits: Array, entries: list[int], rates: Array) -> Array:
    """External requests per second `[..., E]` behind served rates `[..., N]`.

    What an entry serves isn't external as a whole where entries call one another; `visits` `[E, N]` tell
    the parts.
    """
    among = visits[:, entries]
    inverse = 1.0 / np.maximum(among, 1.0) if len(entries) == 1 else np.linalg.pinv(among)
    return np.maximum(rates[..., entries] @ inverse, 0.0)


def entered_response(among: Array, served: Array, response: Array) -> Array:
    """What requests from outside wait on average by what the entries serve, `[L]` s; NaN without traffic.

    It is exact unless services call an entry: their requests may be other ones than those of users.

    Args:
        among: `[E, E]` requests that each entry serves per external request at each entry.
        served: `[L, E]` requests per second of the entries, those of services that call them included.
        response: `[L, E]` mean response of all that they serve.
    """
    external = external_rates(among, list(range(len(among))), served)
    return entry_response(entering(external, served), response)


def told(waited: NDArray[np.floating[Any]] | None, estimate: Array) -> Array:
    """What users waited, `[L]` seconds, as the metrics tell (`MetricPanel.waited`), else by the estimate."""
    return estimate if waited is None else np.where(np.isfinite(waited), waited, estimate)


def entering(external: Array, served: Array) -> Array:
    """External rates `[L, E]`; what the entries served where these aren't known or none is left of it."""
    known = np.isfinite(external).all(axis=1) & (np.nan_to_num(external).sum(axis=1) > 0)
    return np.where(known[:, None], external, served)


def entry_response(served: Array, response: Array) -> Array:
    """Mean response `[L]` over the entries, weighted by requests, from `[L, E]`; NaN without traffic."""
    known = np.isfinite(served) & np.isfinite(response) & (served > 0)
    weight = np.where(known, served, 0.0)
    total = weight.sum(axis=1)
    summed = (weight * np.where(known, response, 0.0)).sum(axis=1)
    means: Array = np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)
    return means
