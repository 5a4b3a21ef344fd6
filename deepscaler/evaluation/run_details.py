"""What a report tells of a run besides its measures: response times, reasons, sources of scenarios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import utc_seconds
from deepscaler.evaluation.measures import BUCKETS
from deepscaler.evaluation.span import Span
from deepscaler.runs import Run


@dataclass(frozen=True, eq=False)
class RunDetails:
    """Of the judged part of one run.

    Attributes:
        buckets: `[len(LATENCY_BUCKETS) + 1]` requests done by response time.
        reasons: how many decisions each reason gave.
        sources: seconds for which each source of scenarios decided; empty if not recorded.
    """

    buckets: NDArray[np.float64]
    reasons: Counter[str]
    sources: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "buckets": self.buckets.tolist(),
            "reasons": dict(self.reasons),
            "sources": dict(self.sources),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RunDetails:
        """Read what `to_dict` gave."""
        buckets = np.array(document["buckets"], np.float64)
        return cls(buckets, Counter(document["reasons"]), dict(document["sources"]))


def run_details(run: Run, span: Span) -> RunDetails:
    """The details of the part of a run that `span` is."""
    return RunDetails(
        buckets=span.cut(run.endpoints)[list(BUCKETS)].sum().to_numpy(np.float64),
        reasons=Counter(span.cut(run.decisions)["reason"].astype(str)),
        sources=_sources(run, span),
    )


def _sources(run: Run, span: Span) -> dict[str, float]:
    """Seconds of the judged part for which each source of scenarios decided."""
    changes = run.info.get("scenario_sources") or []
    moments = [max(utc_seconds(moment), span.start) for moment, _ in changes] + [span.end]
    found: dict[str, float] = {}
    for (_, source), begin, end in zip(changes, moments, moments[1:], strict=False):
        if end > begin:
            found[source] = found.get(source, 0.0) + end - begin
    return found
