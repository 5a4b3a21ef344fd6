"""Graph learners: they make the affinity `[N, N]` (row = caller, column = callee) that a network sees."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.layers import Graphs
from model.settings import LearnerSettings

PRIOR_EDGE = 0.4
"""Affinity that an edge of the prior starts at."""
TEMPERATURE = 0.5
POWER_STEPS = 30
"""Products with the matrix that bring a vector near its leading eigenvector."""
FREE_LOGITS_UP_TO = 50
"""Up to this many services each pair has a logit of its own; beyond, embeddings make them."""


def resting(services: int) -> float:
    """Affinity that a pair without an edge in the prior starts at."""
    return min(0.03, 0.3 / services)


def within_unit(matrix: Tensor) -> Tensor:
    """`matrix [N, N] >= 0` divided by its spectral radius where that exceeds 1.

    Powers of a graph with a larger radius grow from layer to layer; calls alone, which form no cycle, have
    radius 0 and stay as they are. The divisor is the bound of Collatz and Wielandt, max (A v)_i / v_i at a
    positive v near the leading eigenvector: never below the radius. No gradient goes through it.
    """
    with torch.no_grad():
        vector = torch.ones(len(matrix), dtype=matrix.dtype, device=matrix.device)
        for _ in range(POWER_STEPS):
            vector = vector + matrix @ vector
            vector = vector / vector.max()
        bound = (matrix @ vector / vector.clamp(min=1e-12)).max()
    return matrix / bound.clamp(min=1.0)


def off_diagonal(matrix: Tensor) -> Tensor:
    """`matrix` with zeros on its diagonal."""
    return matrix * (1 - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))


def mean_where_present(priors: Mapping[str, Tensor]) -> Tensor | None:
    """Element-wise mean over the priors in which an entry exists; None without priors. `[N, N]`."""
    if not priors:
        return None
    stack = torch.stack(list(priors.values()))
    return stack.sum(0) / (stack != 0).sum(0).clamp(min=1)


class Gates(nn.Module):
    """A gate for each pair: `A_ij = sigmoid((e_i · f_j + b + prior_ij) / 0.5)`.

    A is asymmetric and has a zero diagonal. Networks see it divided by its spectral radius where that exceeds
    1; its gates stay between 0 and 1, to be read.

    The diagonal is no part of A: the network's T_0 is the self term. The learned A feeds only the filters by
    which a callee receives from its callers; the reverse filters see the prior (nothing without one), or else
    a graph and its transpose would fit equally well and neither could be read.
    Source: the gates of this project's design; free logits instead of embeddings up to 50 services.
    """

    def __init__(self, services: int, priors: Mapping[str, Tensor], settings: LearnerSettings) -> None:
        super().__init__()
        rest = resting(services)
        merged = mean_where_present({name: off_diagonal(prior) for name, prior in priors.items()})
        strength = (
            torch.zeros(services, services)
            if merged is None
            else (merged / merged.max().clamp(min=1e-12)).clamp(min=0)
        )
        self.has_prior = bool((strength > 0).any())
        start = torch.where(
            strength > 0, rest + (PRIOR_EDGE - rest) * strength, torch.full_like(strength, rest)
        )
        self.prior_logits: Tensor
        self.reverse: Tensor
        self.register_buffer("prior_logits", TEMPERATURE * torch.logit(start))
        self.register_buffer("reverse", within_unit(PRIOR_EDGE * strength))
        self.free: nn.Parameter | None = None
        if services <= FREE_LOGITS_UP_TO:
            self.free = nn.Parameter(torch.zeros(services, services))
        else:
            scale = 0.1 / math.sqrt(settings.embedding_size)
            self.callers = nn.Parameter(torch.randn(services, settings.embedding_size) * scale)
            self.callees = nn.Parameter(torch.randn(services, settings.embedding_size) * scale)
            self.bias = nn.Parameter(torch.zeros(()))

    def initial(self) -> Tensor:
        """The affinity that training starts with."""
        return self()  # type: ignore[no-any-return]

    def prior(self) -> Tensor:
        """The affinity where no graph is learned: the priors, and no edge elsewhere."""
        return self.reverse

    def change(self) -> Tensor:
        """Change of the logits from the prior's, `[N, N]`."""
        return self.free if self.free is not None else self.callers @ self.callees.T + self.bias

    def forward(self, current: Tensor | None = None) -> Tensor:
        """The affinity `[N, N]`; gates don't use `current`."""
        return off_diagonal(torch.sigmoid((self.prior_logits + self.change()) / TEMPERATURE))

    def penalty(self, affinity: Tensor, current: Tensor) -> Tensor:
        """Mean |change of the logit| over the pairs; without a prior the mean of A."""
        pairs = max(len(affinity) * (len(affinity) - 1), 1)
        return (off_diagonal(self.change()).abs().sum() if self.has_prior else affinity.sum()) / pairs

    def graphs(self, affinity: Tensor) -> Graphs:
        """What the network sees when the affinity is this; of one without any edge, none either way."""
        return Graphs(self.reverse.to(affinity) * affinity.detach().any(), within_unit(affinity))

    def given(self, graph: Tensor, weight: float) -> Tensor:
        """An affinity from a graph made elsewhere: its largest entry becomes `weight`."""
        graph = off_diagonal(graph).clamp(min=0)
        return graph * (weight / graph.max().clamp(min=1e-12))


class Antisymmetric(nn.Module):
    """The published learner: pairs in one direction only, gated against the current affinity.

    M = w1 w2ᵀ - w2 w1ᵀ; Ã = ReLU(M + diag β); a = sigmoid(conv([Ã; A*])); P = a Ã + (1 - a) A*; P <-
    ReLU(norm(P) - ε); norm(P).
    Source: AdapGL (Zhang et al. 2022), section on the graph learner, as DeepScaler uses it.
    Differs: no threshold by default, and the new-edge term has a gradient; `threshold` 0.5 and `sign` bring
    both back.
    """

    def __init__(self, services: int, priors: Mapping[str, Tensor], settings: LearnerSettings) -> None:
        super().__init__()
        self.settings = settings
        bound = 1 / math.sqrt(settings.embedding_size)
        self.first = nn.Parameter(torch.empty(services, settings.embedding_size).uniform_(-bound, bound))
        self.second = nn.Parameter(torch.empty(services, settings.embedding_size).uniform_(-bound, bound))
        self.beta = nn.Parameter(torch.rand(services))
        self.gate = nn.Conv2d(2, 1, 1)
        ready = {
            name: symmetric_norm(torch.eye(services) + _row_mean(off_diagonal(prior)))
            for name, prior in priors.items()
        }
        start = mean_where_present(ready)
        self.start: Tensor
        self.register_buffer("start", torch.eye(services) if start is None else start)

    def initial(self) -> Tensor:
        """The affinity that training starts with: the priors'."""
        return self.start

    def prior(self) -> Tensor:
        """The affinity where no graph is learned: the same."""
        return self.start

    def forward(self, current: Tensor) -> Tensor:
        """The affinity `[N, N]` given the current one."""
        product = self.first @ self.second.T
        proposed = torch.relu(product - product.T + torch.diag(self.beta))
        share = torch.sigmoid(self.gate(torch.stack((proposed, current))[None]))[0, 0]
        mixed = symmetric_norm(share * proposed + (1 - share) * current)
        return symmetric_norm(torch.relu(mixed - self.settings.threshold / len(mixed)))

    def penalty(self, affinity: Tensor, current: Tensor) -> Tensor:
        """relu(share of new edges - δ)/δ, new against `current`."""
        return (
            torch.relu(self.new_edge_share(affinity, current) - self.settings.new_edge_budget)
            / self.settings.new_edge_budget
        )

    def new_edge_share(self, affinity: Tensor, current: Tensor) -> Tensor:
        """Share of the pairs that have an edge now and had none.

        An edge is counted by sign(x), or smoothly by x / (x + 0.5/N).
        """
        counted = (
            torch.sign(affinity)
            if self.settings.new_edge_term == "sign"
            else affinity / (affinity + 0.5 / len(affinity))
        )
        return (counted * (current == 0)).sum() / affinity.numel()

    def graphs(self, affinity: Tensor) -> Graphs:
        """What the network sees: A and Aᵀ, as published."""
        return Graphs(affinity, affinity)

    def given(self, graph: Tensor, weight: float) -> Tensor:
        """An affinity from a graph made elsewhere, with self loops, normalised as the priors are."""
        return symmetric_norm(torch.eye(len(graph), device=graph.device) + _row_mean(off_diagonal(graph)))


def symmetric_norm(matrix: Tensor) -> Tensor:
    """D^{-1/2} P D^{-1/2} with D the row sums; rows without edges stay zero. `[N, N]`."""
    degree = matrix.sum(dim=1)
    root = torch.where(degree > 0, degree.clamp(min=1e-12).rsqrt(), torch.zeros_like(degree))
    return root[:, None] * matrix * root[None, :]


def _row_mean(matrix: Tensor) -> Tensor:
    """D^{-1} A; rows without edges stay zero."""
    degree = matrix.sum(dim=1, keepdim=True)
    return matrix / torch.where(degree > 0, degree, torch.ones_like(degree))


GraphLearner = Gates | Antisymmetric
LEARNERS: dict[str, type[Gates] | type[Antisymmetric]] = {"gates": Gates, "antisymmetric": Antisymmetric}


def build_learner(
    name: str, services: int, priors: Mapping[str, Tensor], settings: LearnerSettings
) -> GraphLearner:
    """The learner `name`; `none` is `gates` that are never trained: the priors stay alone.

    Raises:
        ValueError: unknown name.
    """
    if name not in (*LEARNERS, "none"):
        raise ValueError(f"graph learner {name!r} is unknown; allowed: {', '.join(LEARNERS)}, none")
    return LEARNERS.get(name, Gates)(services, priors, settings)


def edge_floor(learner: GraphLearner, services: int) -> float:
    """Least affinity that is read as an edge: twice what gates without an edge start at."""
    return 2 * resting(services) if isinstance(learner, Gates) else 0.0
