"""Who takes part in a comparison: every network, and some of them without one of their parts."""

from __future__ import annotations

from dataclasses import dataclass

from model.networks import NETWORKS

EDGES = "edges"
"""The part of a network that isn't a switch of its sizes: the graph."""


@dataclass(frozen=True)
class Entrant:
    """A row of the comparison: a network, whole or without one of its parts.

    Attributes:
        network: a key of `NETWORKS`.
        without: `edges`, which leaves no edge and learns none; or a switch of its sizes that is turned off;
            empty: whole.
    """

    network: str
    without: str = ""

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.network}, no {self.without}" if self.without else self.network

    @property
    def whole(self) -> Entrant:
        """The same network with all its parts."""
        return Entrant(self.network)


ENTRANTS = (
    *(Entrant(name) for name in NETWORKS),
    Entrant("AdapGLA", EDGES),
    Entrant("AdapGLA", "attention"),
    Entrant("AdapGLS", EDGES),
    Entrant("AdapGLS", "twin"),
    Entrant("AdapGLS", "present"),
)
"""Every network, and those without the parts whose worth is asked."""
