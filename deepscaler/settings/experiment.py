"""Settings of an experiment: `config/experiments/<name>.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from deepscaler.settings.base import Name, Section, Seeds, Share

Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A name that can be part of a path and of a flag: letters, digits, `_`, `.` and `-`."""
Levels = Annotated[dict[Plain, list[str]], Field(min_length=1)]
"""The overrides of each level of a factor, by name."""
TEST_SEEDS = range(2000, 3000)
"""Nothing is tuned on these seeds."""

SomeSeeds = Annotated[Seeds, Field(min_length=1)]
"""At least one seed."""


class ApplicationCase(Section):
    """One application of an experiment."""

    config: str = Field(description="settings of the application, as `--config` of the scripts")
    set: list[str] = Field([], description="overrides of its settings, section.key=value")
    seeds: SomeSeeds | None = Field(None, description="its seeds; null: those of the load or the experiment")
    test_seeds: SomeSeeds | None = Field(None, description="its test seeds; null: those of the experiment")


class LoadCase(Section):
    """One load of an experiment."""

    set: list[str] = Field([], description="overrides of the application's settings, section.key=value")
    seeds: SomeSeeds | None = Field(None, description="seeds of this load; null: those of the experiment")
    policies: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="policies of this load; null: those of the experiment"
    )


class Variant(Section):
    """A policy under settings of its own, by a name of its own."""

    policy: Name = Field(description="which policy, as in `policies`")
    set: list[str] = Field([], description="overrides for this policy alone, section.key=value")


class Sweep(Section):
    """One policy at several values of a knob: a family `<name>_<value>`, as `hpa_70` is one of `hpa`.

    Without `set`, a point has the name of the policy that runs: `hpa_r80` of a sweep over `hpa_r{}`.
    """

    policy: str = Field(description="which policy; `{}` in it stands for the value: hpa_{}")
    set: list[str] = Field(
        [], description="overrides for this policy alone; `{}` stands for the value: scale.prices.shortage={}"
    )
    values: list[float] = Field(min_length=1, description="values of the knob")

    @model_validator(mode="after")
    def _uses_the_value(self) -> Self:
        if "{}" not in "".join([self.policy, *self.set]):
            raise ValueError("the value goes nowhere: `{}` stands for it in `policy` or `set`")
        return self


class Holds(Section):
    """A promise that a run keeps or breaks."""

    measure: Name = Field("p99_seconds", description="a measure of summary.json")
    at_most: float = Field(description="its bound: each run must keep it")


class Experiment(Section):
    """`config/experiments/<name>.yaml`: applications x loads x levels of factors x policies x seeds.

    Every combination of an application, a load and one level of each factor is a case. In a case, all
    policies see the same loads: one per seed.
    """

    question: str = Field("", description="what the experiment answers; its report begins with it")
    config: str | None = Field(
        None,
        description="settings of the application, as `--config` of the scripts; null: see `applications`",
    )
    applications: dict[Plain, ApplicationCase] = Field(
        {}, description="several applications by name, instead of `config`"
    )
    set: list[str] = Field([], description="overrides for all runs, section.key=value")
    loads: dict[Plain, LoadCase] = Field(min_length=1, description="by name")
    factors: dict[Plain, Levels] = Field(
        {},
        description="what else is varied: factor, level, overrides of that level; all combinations are run",
    )
    policies: list[str] = Field(
        min_length=1, description="as `scale.policies`, or names of `variants` and `sweeps`"
    )
    variants: dict[Plain, Variant] = Field({}, description="policies under settings of their own, by name")
    sweeps: dict[Plain, Sweep] = Field(
        {}, description="policies at several values of a knob, by name of the family"
    )
    prepare: bool = Field(
        False,
        description="true: each case first collects telemetry (`collect.last`) and fits the demand to "
        "it; cases that differ in `scale` alone share both",
    )
    holds: Holds | None = Field(
        None,
        description="a promise: a table names the cheapest setting of each policy that keeps it in all runs",
    )
    baseline: str = Field("hpa_70", description="policy that the others are paired with")
    seeds: SomeSeeds = Field(
        description="one run per seed and policy, the same load for all policies; with `test_seeds`, those "
        "on which the points of `sweeps` are chosen",
    )
    test_seeds: Seeds = Field(
        [],
        description="seeds of `--test`: the points that were chosen on `seeds`, and the baseline, are run on "
        "them",
    )
    most_violations: Share = Field(
        0.01,
        description="share of violating minutes up to which the cheapest point of a sweep goes to the test",
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="processes side by side on this machine; null: one per core"
    )
    output: str = Field(description="<case>/<policy>-<seed>/ and summary.json go below")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.config) == bool(self.applications):
            raise ValueError("give either `config` or `applications`")
        wrong = [seed for seed in self.test_seeds if seed not in TEST_SEEDS]
        if wrong:
            raise ValueError(f"test_seeds: {wrong[0]} is none of 2000 to 2999, which are kept for tests")
        leaking = [key for key, seeds in self._seeds_by_key() if any(seed in TEST_SEEDS for seed in seeds)]
        if self.sweeps and leaking:
            raise ValueError(
                f"{leaking[0]}: a sweep is chosen on validation seeds (1000-1999); "
                "put 2000-2999 into test_seeds"
            )
        self._check_factors()
        return self

    def _seeds_by_key(self) -> Iterator[tuple[str, list[int]]]:
        """All seeds but those of the test, and the key below which they stand."""
        yield "seeds", self.seeds
        for key, named in (("applications", self.applications), ("loads", self.loads)):
            yield from ((f"{key}.{name}.seeds", case.seeds or []) for name, case in named.items())

    def _check_factors(self) -> None:
        taken = {"application", "load", "policy", "seed"} & self.factors.keys()
        if taken:
            raise ValueError(f"factors: {min(taken)!r} is the name of something else")
        for factor, levels in self.factors.items():
            earlier: dict[tuple[str, ...], str] = {}
            for level, overrides in levels.items():
                same = earlier.setdefault(tuple(overrides), level)
                if same != level:
                    raise ValueError(f"factors: {factor}: {same!r} and {level!r} are the same settings")
