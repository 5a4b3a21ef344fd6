"""Other ways to read who acts on whom from one metric of each service: what `graph_recovery` compares with.

Each takes series `[L, N]` with mean 0 and standard deviation 1 and gives strengths `[N, N]`, row = cause; 0
is no edge. PC, GES, DirectLiNGAM and PCMCI come from the libraries in requirements-graphs.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Method = Callable[[Array], Array]
LAGS = 4
"""Samples that a cause may come earlier, for the lagged correlation."""
PAST = 2
"""Earlier samples that Granger's test looks at."""
ALPHA = 0.01
"""Level of the independence tests of PC and PCMCI."""
CAUSAL_LEARN, TIGRAMITE = "causallearn", "tigramite"


def lagged_correlation(series: Array) -> Array:
    """The largest absolute correlation of an effect with its cause, which is up to `LAGS` samples earlier."""
    length = len(series)
    found = np.zeros((series.shape[1], series.shape[1]))
    for lag in range(LAGS + 1):
        earlier, later = series[: length - lag], series[lag:]
        found = np.maximum(found, np.abs(earlier.T @ later) / (length - lag))
    return found


def granger(series: Array) -> Array:
    """How much the past of a cause adds to the past of its effect: the F statistic of each pair.

    Source: Granger 1969; two ordinary least squares fits per pair.
    """
    length, count = series.shape
    past = [series[PAST - lag : length - lag] for lag in range(1, PAST + 1)]
    now, found = series[PAST:], np.zeros((count, count))
    one = np.ones((len(now), 1))
    for effect in range(count):
        own = np.column_stack([one, *(part[:, effect] for part in past)])
        alone = _squares(own, now[:, effect])
        for cause in range(count):
            if cause != effect:
                both = np.column_stack([own, *(part[:, cause] for part in past)])
                left = max(_squares(both, now[:, effect]), 1e-12)
                found[cause, effect] = (alone - left) / PAST / (left / (len(now) - both.shape[1]))
    return np.maximum(found, 0.0)


def _squares(design: Array, target: Array) -> float:
    """What least squares leaves of the target, squared and summed."""
    coefficients, *_ = np.linalg.lstsq(design, target, rcond=None)
    return float(((target - design @ coefficients) ** 2).sum())


def pc(series: Array) -> Array:
    """1 for edges with a direction, 1/2 either way for those without.

    Source: the PC algorithm (Spirtes and Glymour 1991) of causal-learn, Fisher's z test.
    """
    from causallearn.search.ConstraintBased.PC import pc as search

    return _directed(search(series, alpha=ALPHA, show_progress=False).G.graph)


def ges(series: Array) -> Array:
    """1 for edges with a direction, 1/2 either way for those without.

    Source: GES (Chickering 2002) of causal-learn, the Gaussian BIC score.
    """
    from causallearn.search.ScoreBased.GES import ges as search

    return _directed(search(series)["G"].graph)


def _directed(graph: Array) -> Array:
    """Strengths of causal-learn's graphs: -1 is the tail of an arrow, 1 its head."""
    found = np.zeros(graph.shape)
    found[(graph == -1) & (graph.T == 1)] = 1.0
    found[(graph == -1) & (graph.T == -1) | (graph == 1) & (graph.T == 1)] = 0.5
    return found


def direct_lingam(series: Array) -> Array:
    """Absolute coefficients of the linear model.

    Source: DirectLiNGAM (Shimizu et al. 2011), the authors' code as causal-learn brings it.
    """
    from causallearn.search.FCMBased.lingam import DirectLiNGAM

    model = DirectLiNGAM()
    model.fit(series)
    strengths: Array = np.abs(model.adjacency_matrix_).T  # there, row = effect
    return strengths


def pcmci(series: Array) -> Array:
    """Absolute partial correlations that are significant, at the same sample or one earlier.

    Source: PCMCI (Runge et al. 2019) of tigramite, partial correlation.
    """
    from tigramite.data_processing import DataFrame
    from tigramite.independence_tests.parcorr import ParCorr
    from tigramite.pcmci import PCMCI

    search = PCMCI(DataFrame(series), ParCorr(), verbosity=0)
    found = search.run_pcmci(tau_min=0, tau_max=1, pc_alpha=0.05, max_conds_dim=3)
    strengths: Array = (np.abs(found["val_matrix"]) * (found["p_matrix"] < ALPHA)).max(axis=2)
    return strengths


RIVALS: Mapping[str, tuple[Method, str | None]] = {
    "PC": (pc, CAUSAL_LEARN),
    "GES": (ges, CAUSAL_LEARN),
    "DirectLiNGAM": (direct_lingam, CAUSAL_LEARN),
    "PCMCI": (pcmci, TIGRAMITE),
    "Granger": (granger, None),
    "lagged correlation": (lagged_correlation, None),
}
"""Name -> method, and the package that it needs."""


def installed() -> dict[str, Method]:
    """The rivals that can run here."""
    return {name: method for name, (method, package) in RIVALS.items() if not package or find_spec(package)}


def absent() -> list[str]:
    """The rivals whose package isn't there."""
    return [name for name in RIVALS if name not in installed()]
