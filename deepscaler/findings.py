"""What a check found: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepscaler.commands import complete
from deepscaler.scrubbing import scrubbed

State = Literal["ok", "note", "MISSING"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: `ok`; `note`: it works, but less well than it could; `MISSING`: it is needed and isn't there.
        about: what was looked at.
        text: what was found and, unless it is `ok`, what to do.
    """

    state: State
    about: str
    text: str

    def __str__(self) -> str:
        """`ok       Prometheus: it answers`, without secrets."""
        return f"{self.state:<8} {self.about}: {scrubbed(complete(self.text))}"


def summary(findings: list[Finding]) -> str:
    """The last line."""
    counts = {state: sum(item.state == state for item in findings) for state in ("ok", "note", "MISSING")}
    verdict = "not ready" if counts["MISSING"] else "ready"
    return f"{verdict}: {counts['ok']} ok, {counts['note']} to know of, {counts['MISSING']} missing"
