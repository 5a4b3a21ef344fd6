"""Settings of an experiment: `config/experiments/<name>.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from deepscaler.settings.base import Section


class LoadCase(Section):
    """One load of an experiment."""

    set: list[str] = Field([], description="overrides of the application's settings, section.key=value")
    seeds: list[int] | None = Field(None, description="seeds of this load; null: those of the experiment")
    policies: list[str] | None = Field(
        None, description="policies of this load; null: those of the experiment"
    )


class Experiment(Section):
    """`config/experiments/<name>.yaml`: loads x policies x seeds."""

    config: str = Field(description="settings of the application, as `--config` of the scripts")
    set: list[str] = Field([], description="overrides for all loads, section.key=value")
    loads: dict[str, LoadCase] = Field(min_length=1, description="by name")
    policies: list[str] = Field(min_length=1, description="as `scale.policies`")
    seeds: list[int] = Field(
        min_length=1, description="one run per seed and policy, the same load for all policies"
    )
    workers: Annotated[int, Field(ge=1)] = Field(2, description="processes side by side")
    output: str = Field(description="<load>/<policy>-<seed>/ and summary.json go below")
