"""Graphs compared in pairs, and whether later ones follow the changes of the first: numbers and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from deepscaler.errors import DataError
from deepscaler.graphs.similarity import Matrix, moved, similarity
from deepscaler.text import aligned

COLUMNS = {
    "weighted_jaccard": "weighted Jaccard",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "spectral": "spectral",
    "published_shared_edge_ratio": "published",
}
"""What the table shows of `similarity`, and the headings."""
NOTES = """\
weighted Jaccard: sum of minima / sum of maxima over all pairs, each graph scaled to its largest weight.
precision, recall, F1: the second graph's heaviest edges, as many as the first has, against the first's.
spectral: eigenvalues of the normalised Laplacians; the shape without the names. published
(published_shared_edge_ratio): over shared edges only. It ignores every edge that only one graph has:
a graph of one edge can score 1."""
"""Explains the columns below the table."""


def compare_pairs(graphs: Mapping[str, Matrix], threshold: float) -> list[dict[str, Any]]:
    """All measures of `similarity` for each pair of graphs; `first` and `second` name the two."""
    return [
        {"first": one, "second": two, **similarity(graphs[one], graphs[two], threshold)}
        for one, two in combinations(graphs, 2)
    ]


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """One row per pair of graphs, with notes that explain the columns."""
    rows = [["first", "second", "edges", *COLUMNS.values()]]
    for pair in pairs:
        numbers = (f"{pair[column]:.3f}" for column in COLUMNS)
        rows.append([pair["first"], pair["second"], str(pair["edges"]), *numbers])
    return "\n".join([*aligned(rows), "", NOTES])


def follow_changes(graphs: Mapping[str, Matrix]) -> list[dict[str, Any]]:
    """How each later pair (before, after) of graphs moved where the first pair did (see `moved`).

    Raises:
        DataError: an odd number of graphs, or one pair alone.
    """
    names = list(graphs)
    if len(names) < 4 or len(names) % 2:
        raise DataError(f"--changes needs two or more pairs of graphs, found {len(names)} graph(s)")
    first = (graphs[names[0]], graphs[names[1]])
    return [
        {"reference": names[:2], "pair": [before, after], **moved(first, (graphs[before], graphs[after]))}
        for before, after in zip(names[2::2], names[3::2], strict=True)
    ]


def changes_text(changes: Sequence[Mapping[str, Any]]) -> str:
    """One line per pair of graphs that `follow_changes` compared."""
    return "\n".join(
        f"{' -> '.join(made['pair'])}: rank correlation with the changes of {' -> '.join(made['reference'])} "
        f"{made['correlation']:+.2f} over {made['pairs']:.0f} pairs; "
        f"{made['right_way']:.0%} of the {made['large']:.0f} large ones in the right direction"
        for made in changes
    )
