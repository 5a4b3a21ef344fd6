"""Windows, step limits and tolerance of single services, in the words of `spec.behavior` of an HPA.

They come from the settings or from an annotation on the Deployment, which its owner can edit without touching
the settings. The rules are those of `deepscaler/policies/hpa`: percent and pods per period, stabilization
windows of both directions, `selectPolicy`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepscaler.artefacts import one_line, parse_json
from deepscaler.cluster import ScaleReport, Workload
from deepscaler.control.decision import Decision, Rules
from deepscaler.errors import SettingsError
from deepscaler.logs import OnChange
from deepscaler.policies.base import Reason
from deepscaler.policies.hpa.api import parse_spec
from deepscaler.policies.hpa.limits import normalize, store_scale_event
from deepscaler.policies.hpa.spec import Flags, HpaSpec
from deepscaler.policies.hpa.state import HpaState, Stamped
from deepscaler.settings import GuardRails

log = logging.getLogger(__name__)
ANNOTATION = "deepscaler.io/behavior"
"""An annotation on a Deployment: JSON, `{"scaleDown": {"stabilizationWindowSeconds": 600}}`."""
_MOST_REPLICAS = 2**31 - 1


@dataclass(frozen=True)
class HpaRules:
    """The rules of one service at one moment; see `Rules`."""

    spec: HpaSpec
    state: HpaState

    def tolerance(self, up: bool, usual: float) -> float:
        """The tolerance of a direction; where none is stated, the usual one."""
        assert self.spec.behavior is not None
        stated = (self.spec.behavior.up if up else self.spec.behavior.down).tolerance
        return usual if stated is None else stated

    def limit(self, current: int, wish: int, now: float) -> tuple[int, Reason | None]:
        """What the windows and rates leave of a wish, and which of the two changed it last."""
        found = normalize(self.spec, self.state, current, wish, now)
        if found.limited.startswith("True"):
            return found.target, Reason.STEP_LIMIT
        return found.target, Reason.STABILIZED if found.target != wish else None


class Behaviors:
    """Remembers of each service with a behavior what was recommended and written.

    Args:
        rails: those of the settings.

    Raises:
        SettingsError: an API server would refuse a behavior of the settings.
    """

    def __init__(self, rails: GuardRails) -> None:
        self._flags = Flags(downscale_stabilization_seconds=rails.scale_down_window)
        self._stated = {
            name: self._spec(given, f"scale.guard_rails.behavior.{name}")
            for name, given in rails.behavior.items()
        }
        self._annotated: dict[str, tuple[str, HpaSpec | None]] = {}  # service -> text, what it means
        self._states: dict[str, HpaState] = {}
        self._specs: dict[str, HpaSpec] = {}
        self._on_change = OnChange(log)

    def _spec(self, given: Any, where: str) -> HpaSpec:
        document = {"minReplicas": 1, "maxReplicas": _MOST_REPLICAS, "behavior": given}
        try:
            spec = parse_spec(document, self._flags)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
        if spec.behavior is None:
            raise SettingsError(f"{where}: expected a mapping with scaleUp or scaleDown, found {given!r}")
        return spec

    def rules(self, workloads: Sequence[Workload], now: float) -> Mapping[str, Rules]:
        """Service -> its rules, for those that have some; an annotation wins over the settings.

        One that can't be read is logged and ignored.
        """
        self._specs = {}
        for item in workloads:
            spec = self._of(item.service, item.annotations.get(ANNOTATION))
            if spec is not None:
                self._specs[item.service] = spec
                # as an HPA does when it starts: what there is counts as recommended, so going down waits
                first = HpaState(recommendations=(Stamped(item.replicas, now),))
                self._states.setdefault(item.service, first)
        self._states = {name: state for name, state in self._states.items() if name in self._specs}
        return {name: HpaRules(spec, self._states[name]) for name, spec in self._specs.items()}

    def _of(self, service: str, text: str | None) -> HpaSpec | None:
        if text is None:
            self._on_change.well(service, f"{service}: annotation {ANNOTATION}: gone")
            return self._stated.get(service)
        if service not in self._annotated or self._annotated[service][0] != text:
            self._annotated[service] = (text, self._read(service, text))
        found = self._annotated[service][1]
        return self._stated.get(service) if found is None else found

    def _read(self, service: str, text: str) -> HpaSpec | None:
        try:
            spec = self._spec(parse_json(text), "it")
        except (ValueError, SettingsError) as error:
            told = f"{service}: annotation {ANNOTATION} is ignored: {one_line(error)}"
            self._on_change.trouble(service, told)
            return None
        self._on_change.well(service, f"{service}: annotation {ANNOTATION}: read")
        return spec

    def record(
        self, decisions: Sequence[Decision], report: ScaleReport, now: float, acting: Collection[str]
    ) -> None:
        """Remember what a tick recommended, and the replicas that it wrote.

        Args:
            decisions: one per service.
            report: what was written.
            now: steady seconds.
            acting: services whose replicas are written; of others a report names minimums of their HPAs.
        """
        for item in decisions:
            spec, state = self._specs.get(item.service), self._states.get(item.service)
            if spec is None or state is None:
                continue
            state = normalize(spec, state, item.current, item.recommended, now).state
            if item.service in acting and item.service in report.applied:
                state = store_scale_event(state, spec, item.current, report.applied[item.service], now)
            self._states[item.service] = state
