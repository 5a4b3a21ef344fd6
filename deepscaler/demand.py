"""What services need: CPU demand, visits and response from telemetry, and the `required` rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.panel import MetricPanel


@dataclass(frozen=True, eq=False)
class Response:
    """Entry response `R = r0 + κ Σ_i (v_i s_i / limit_i) g(ρ_i, n_i)`; `form` names g."""

    r0: float
    kappa: float
    form: str


@dataclass(frozen=True, eq=False)
class DemandModel:
    """The fit of MODEL: demand, visits, response, and the settings of the rule. Travels in data set and bundle.

    Attributes:
        idle_cores: a, `[N]` cores a ready replica uses without load.
        demand_seconds: s, `[N]` CPU-seconds a request.
        limit_cores, boot_seconds: `[N]`.
        entries: E services that requests enter at.
        visits: `[E, N]` requests served by each service per external request at each entry.
        external_share: `[E]` share of each entry in the external requests.
        sla_seconds: bound on the entry mean response (request-weighted over the entries).
        response: None where the data didn't support it.
        quality: fit diagnostics, plain numbers.
    """

    services: tuple[str, ...]
    idle_cores: NDArray[np.float64]
    demand_seconds: NDArray[np.float64]
    limit_cores: NDArray[np.float64]
    boot_seconds: NDArray[np.float64]
    entries: tuple[str, ...]
    visits: NDArray[np.float64]
    external_share: NDArray[np.float64]
    sla_seconds: float
    think_seconds: float | None
    rho_max: float
    sla_margin: float
    response: Response | None
    quality: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        ...

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DemandModel:
        """The inverse of `to_dict`."""
        ...


def required_replicas(model: DemandModel, rates: NDArray[np.float64], rho_max: float | None = None) -> NDArray[np.float64]:
    """The cheapest replicas `[L, N]` that meet the SLA at service request rates `[L, N]` (NaN rates give NaN)."""
    ...


def present_requirement(model: DemandModel, panel: MetricPanel, seconds: float, rho_max: float) -> NDArray[np.float64]:
    """Replicas `[N]` the rule asks for at the demand-corrected rate of the last `seconds`; NaN where data is missing."""
    ...
