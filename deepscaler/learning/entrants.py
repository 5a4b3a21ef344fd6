"""Who takes part in a comparison: every network, twice, and some of them without one of their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.networks import NETWORKS

EDGES = "edges"
"""The part of a network that isn't a switch of its sizes: the graph."""
PRESENT = "present"
"""The switch of AdapGLS for what is known of the next label."""
SIMPLE = ("KnownNow", "Persistence", "SeasonalNaive", "AR")
"""Forecasts without a network, which every network has to beat. They stand in every comparison."""
TITLES = {"KnownNow": "known now, rounded up"}
"""Names in tables where they differ from those in `NETWORKS`."""
BLOCKS = {
    True: "told what is known now of the next label, and the season",
    False: "told the window alone, and past labels where it reads them",
}
"""Titles of the table's blocks, by `Entrant.told`. Only rows of one block are compared like with like."""


@dataclass(frozen=True)
class Entrant:
    """A row of the comparison: a network, whole or without one of its parts.

    Attributes:
        network: a key of `NETWORKS`.
        without: `edges`, which leaves no edge and learns none; or a switch of its sizes that is turned off;
            empty: whole.
        told: it is told what is known now of the next label, and the season. AdapGLS reads both itself; any
            other network gets them as `model.told` gives them.
    """

    network: str
    without: str = ""
    told: bool = False

    @property
    def label(self) -> str:
        """Its name in tables."""
        name = TITLES.get(self.network, self.network)
        if self.told and not self.itself:
            name = f"{name}, told"
        return f"{name}, no {self.without}" if self.without else name

    @property
    def itself(self) -> bool:
        """Whether it reads by itself whatever it is told."""
        return self.network in ("AdapGLS", "KnownNow", "SeasonalNaive")

    @property
    def wrapped(self) -> bool:
        """Whether it has to be told by `model.told`."""
        return self.told and not self.itself

    @property
    def whole(self) -> Entrant:
        """The same network with all its parts."""
        return Entrant(self.network, told=self.told or self.without == PRESENT)


TRAINED = tuple(name for name in NETWORKS if name not in (*SIMPLE, "AdapGLS"))
ENTRANTS = (
    Entrant("KnownNow", told=True),
    Entrant("SeasonalNaive", told=True),
    Entrant("AR", told=True),
    *(Entrant(name, told=True) for name in TRAINED),
    Entrant("AdapGLS", told=True),
    Entrant("AdapGLS", EDGES, told=True),
    Entrant("AdapGLS", "twin", told=True),
    Entrant("Persistence"),
    Entrant("AR"),
    *(Entrant(name) for name in TRAINED),
    Entrant("AdapGLA", EDGES),
    Entrant("AdapGLA", "attention"),
    Entrant("AdapGLS", PRESENT),
)
"""Every network in each block, and those without the parts whose worth is asked."""


def entrants_of(networks: Sequence[str]) -> tuple[Entrant, ...]:
    """The rows of these networks and of the simple forecasts."""
    return tuple(entrant for entrant in ENTRANTS if entrant.network in (*SIMPLE, *networks))
