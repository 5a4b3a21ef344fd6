"""How main.py trains (`train_config.yaml`), and on which data and sizes (`train_datasets_speed.yaml`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deepscaler.settings.base import Count, NotNegative, Positive, Section, Seed, Seeds, Share
from deepscaler.settings.scaling import PlanPrices

Channels = Annotated[int, Field(ge=2)]
"""A number of channels that is 2 or more."""
Dropout = Annotated[float, Field(ge=0, lt=1)]
"""Share of values that are dropped while training."""


class Optimiser(Section):
    """Adam, which trains the network, and its cosine schedule."""

    learning_rate: Positive = Field(1e-3, description="learning rate of the network")
    weight_decay: NotNegative = Field(
        1e-4, description="weight decay of the network; the graph learner has none"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="course of the learning rates; one cosine spans the whole run"
    )
    gradient_clip: Positive | None = Field(
        5.0, description="norm to which larger gradients are cut; null: they aren't"
    )


class Graph(Section):
    """The graph learner, and the EM loop that trains it in turn with the network."""

    learner: Literal["gates", "antisymmetric", "none"] = Field(
        "gates",
        description="gates: this project's learner; antisymmetric: as published; none: the priors stay",
    )
    trainer: Literal["em", "end_to_end"] = Field(
        "em", description="em: graph and network take turns; end_to_end: both learn in one step"
    )
    max_graph_num: Count = Field(3, description="|S|: candidate graphs that are kept")
    embedding_size: Count = Field(
        8, description="size of a service's embedding; gates use it beyond 50 services; 64 as published"
    )
    learning_rate: Positive = Field(1e-2, description="learning rate of the graph learner")
    sparsity_weight: NotNegative = Field(
        0.005, description="weight of the term that keeps the learned graph sparse"
    )
    union_temperature: Literal["spread", "raw"] = Field(
        "spread",
        description="temperature of the softmax that weighs the candidates by their losses in the union; "
        "spread: a third of the losses' spread; raw: 1, as published, which weighs all nearly alike",
    )
    union_share: Share = Field(
        0.8,
        description="share of the iterations in which the network sees the union of the candidates; "
        "after that it sees the newest graph",
    )
    new_edge_term: Literal["smooth", "sign"] = Field(
        "smooth",
        description="antisymmetric: how new edges are counted; sign: as published, which has no gradient",
    )
    new_edge_budget: Positive = Field(
        0.05, description="antisymmetric: δ, the share of new edges that is free of charge"
    )
    threshold: NotNegative = Field(
        0.0, description="antisymmetric: ε·N, below which weights are cut; 0.5 as published"
    )


class Comparison(Section):
    """The budget of every network under `--model_name all`.

    With `--full` the networks have their own sizes, the data's window and the epochs of the training instead.
    """

    seeds: Seeds = Field([1, 2, 3], min_length=1, description="each network is trained once for each seed")
    window: Count = Field(
        20, description="time steps that the networks look back; fewer where the data has fewer"
    )
    channels: Channels = Field(64, description="channels of every network that has any")
    epochs: Count = Field(12, description="most epochs; graph and network learn in one step (end to end)")
    patience: Count = Field(5, description="epochs without a new best after which a training stops")
    processor_seconds: Positive = Field(
        45.0,
        description="seconds of processor time after which no further epoch begins (stops AdapGLD and DCRNN)",
    )
    learning_rate: Positive = Field(2e-3, description="learning rate of every network")
    unrounded: bool = Field(True, description="the key `unrounded` of a training, for every row of the table")
    workers: Count = Field(2, description="trainings side by side on a CPU, one thread each")


class GateSettings(Section):
    """`main.py --gate`: when a new bundle takes the old one's place."""

    prices: PlanPrices = PlanPrices()
    decisions: Count = Field(2880, description="newest decisions of the test split that both are judged on")
    block_seconds: Positive = Field(
        1800.0, description="length of the blocks of decisions whose means tell a gain from noise"
    )
    blocks: Annotated[int, Field(ge=2)] = Field(8, description="fewest blocks by which a gain can be told")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.95, description="level of the interval of the difference in cost; all of it has to be below 0"
    )


class Train(Section):
    """`train_config.yaml`: how a network and its graph are trained."""

    optimiser: Optimiser = Optimiser()
    graph: Graph = Graph()
    comparison: Comparison = Comparison()
    gate: GateSettings = GateSettings()
    num_epoch: Count = Field(5, description="epochs of each M-step and each E-step")
    num_iter: Count = Field(20, description="EM iterations")
    patience: Count = Field(
        5,
        description="epochs of a step, and iterations of a run, without a new best after which it stops",
    )
    stop_early: bool = Field(
        False, description="true: the run may stop early under a cosine too; at a constant rate it always may"
    )
    processor_seconds: Positive | None = Field(
        None, description="seconds of processor time after which no further iteration begins; null: no bound"
    )
    early_stopping: Literal["best", "previous"] = Field(
        "best",
        description="what an epoch is compared with: the best so far, or the one before it (as published; "
        "it never stops on a plateau)",
    )
    unrounded: bool = Field(
        False,
        description="label required: true learns the requirement before it is rounded up, and rounds "
        "forecasts up; closer, but leaner",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="precision of matrix products while training; weights and bundle are float32 either way",
    )
    compile: bool = Field(
        False, description="true: torch.compile the network; on a CPU it needs a C++ compiler"
    )
    seed: Seed = Field(1, description="seed of the weights and of the order of the training windows")
    random_graphs: Annotated[int, Field(ge=0)] = Field(
        5, description="block 'is the graph real?': number of random graphs among the learned graph's rivals"
    )
    refit_epochs: Annotated[int, Field(ge=0)] = Field(
        5, description="same block: epochs for which a fresh network is fitted with each graph; 0: none is"
    )
    refit_seeds: Count = Field(
        1,
        description="same block: fresh networks per graph, paired by seed; "
        "there are intervals from 2 on, narrow ones from 5",
    )
    refit_graphs: list[str] = Field(
        [],
        description="same block: rivals that are refitted beside the learned graph; empty: the main ones",
    )
    graph_seeds: Annotated[int, Field(ge=0)] = Field(
        0, description="further whole trainings with other seeds, to see whether their graphs are alike"
    )


class DataSettings(Section):
    """Where the training data lies, and on what it is trained."""

    data_dir: str = Field("data/boutique", description="directory that data_process.py has written")
    batch_size: Count = Field(64, description="windows per training step")
    device: str = Field("auto", description="auto, cpu, cuda or `cuda:<n>`")
    threads: Annotated[int, Field(ge=0)] = Field(
        0, description="CPU threads; 0: as many as pay, one for small networks"
    )
    stride: Count = Field(1, description="training takes every n-th window")
    evaluation_stride: Count = Field(1, description="validation and test take every n-th window")
    longest_season: Annotated[int, Field(ge=0)] = Field(
        2000,
        description="longest season, in time steps, that is looked for in the training labels; 0: none is",
    )


class AdapGLASizes(Section):
    """AdapGLA: attention, graph convolution and convolution over time; sizes as published."""

    graph_channels: Channels = Field(128, description="channels of the graph convolutions")
    time_channels: Count = Field(128, description="channels of the convolutions over time")
    order: Count = Field(3, description="K: number of Chebyshev terms T_0..T_{K-1}")
    kernel: Count = Field(5, description="time steps that a convolution over time spans")
    blocks: Count = Field(2, description="blocks one after another")
    attention: bool = Field(True, description="false: without temporal attention, for comparison")


class AdapGLTSizes(Section):
    """AdapGLT: graph convolution, a GRU over time and attention over the window; sizes as published."""

    graph_channels: Channels = Field(128, description="channels of the graph convolutions")
    time_channels: Count = Field(128, description="channels of the GRU")
    order: Count = Field(3, description="K: number of Chebyshev terms T_0..T_{K-1}")
    blocks: Count = Field(2, description="blocks one after another")


class DiffusionSizes(Section):
    """AdapGLD and DCRNN: recurrent, with diffusion convolution; sizes of Li et al. 2018, appendix E."""

    channels: Count = Field(64, description="channels of each recurrent layer")
    diffusion: Annotated[int, Field(ge=0)] = Field(
        2, description="steps of the random walks in each of the two directions"
    )
    layers: Count = Field(2, description="layers of the encoder, and of the decoder")


class STIDSizes(Section):
    """STID: sizes of Shao et al. 2022, with the authors' dropout."""

    channels: Count = Field(
        32, description="channels of each of the three embeddings: window, service, time of day"
    )
    layers: Count = Field(3, description="layers of the network")
    slots: Count = Field(288, description="times of day that have an embedding; 288: one per five minutes")
    dropout: Dropout = Field(0.15, description="share of values that are dropped while training")


class LSTMSizes(Section):
    """LSTM: an ordinary one."""

    channels: Count = Field(128, description="channels of each layer")
    layers: Count = Field(2, description="layers of the network")


class GCNSizes(Section):
    """GCN: an ordinary one."""

    channels: Count = Field(128, description="channels of each layer")
    layers: Count = Field(2, description="layers of the network")


class ASTGCNSizes(Section):
    """ASTGCN: sizes of Guo et al. 2019, section 5.2."""

    channels: Count = Field(64, description="channels of each block")
    order: Count = Field(3, description="K: number of Chebyshev terms T_0..T_{K-1}")
    kernel: Count = Field(3, description="time steps that a convolution over time spans")
    blocks: Count = Field(2, description="blocks one after another")


class AdapGLSSizes(Section):
    """AdapGLS: this project's own network."""

    channels: Count = Field(64, description="channels of each block")
    blocks: Count = Field(2, description="blocks one after another")
    dropout: Dropout = Field(0.1, description="share of values that are dropped while training")
    twin: bool = Field(
        True,
        description="false: without the expert for shifts of level and without weights that adapt online",
    )
    present: bool = Field(
        True,
        description="false: starts from the newest complete label instead of the present, for comparison",
    )


class AdapGLQSizes(Section):
    """AdapGLQ: this project's own network for scenarios (`process.label: offered`)."""

    channels: Count = Field(64, description="channels of each block")
    blocks: Count = Field(2, description="blocks one after another")
    dropout: Dropout = Field(0.2, description="share of values that are dropped while training")


class NoSizes(Section):
    """A network without sizes."""


class ModelConfig(Section):
    """`train_datasets_speed.yaml`: the data set, the device, and one block of sizes for each network."""

    dataset: DataSettings = DataSettings()
    AdapGLA: AdapGLASizes = AdapGLASizes()
    AdapGLT: AdapGLTSizes = AdapGLTSizes()
    AdapGLD: DiffusionSizes = DiffusionSizes()
    AdapGLS: AdapGLSSizes = AdapGLSSizes()
    AdapGLQ: AdapGLQSizes = AdapGLQSizes()
    AR: NoSizes = NoSizes()
    STID: STIDSizes = STIDSizes()
    LSTM: LSTMSizes = LSTMSizes()
    GCN: GCNSizes = GCNSizes()
    ASTGCN: ASTGCNSizes = ASTGCNSizes()
    DCRNN: DiffusionSizes = DiffusionSizes()
    Persistence: NoSizes = NoSizes()
    SeasonalNaive: NoSizes = NoSizes()
    KnownNow: NoSizes = NoSizes()
