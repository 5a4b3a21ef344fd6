"""The names of files that lie beside a bundle `<name>.pt` and aren't the bundle itself."""

from __future__ import annotations

from pathlib import Path

PREVIOUS = "previous"
"""The bundle before it: `<name>.previous.pt`."""
CANDIDATE = "candidate"
"""One that was judged and not taken, or isn't yet: `<name>.candidate.pt`."""
ASIDE = "rollback"
"""The bundle while it is exchanged with the one before it."""
CHECKPOINT = "checkpoint"
"""The state of a training that isn't over."""
BESIDE = (PREVIOUS, CANDIDATE, ASIDE, CHECKPOINT)


def lies_beside(path: Path) -> bool:
    """Does the file, by its name, only lie beside a bundle (`<name>.previous.affinity.csv`, say)?"""
    return any(word in BESIDE for word in path.name.split(".")[1:])
