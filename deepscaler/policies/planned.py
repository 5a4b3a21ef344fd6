"""Plans by cost as the settings ask for them: their sources of scenarios, floor, prices and budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deepscaler.labels.demand import DemandModel
from deepscaler.planning.altered import Altered
from deepscaler.planning.budget import Budget
from deepscaler.planning.plan import Prices
from deepscaler.planning.scenarios import ScenarioSource
from deepscaler.planning.sources import Asked, on_trial
from deepscaler.planning.trials import Trials
from deepscaler.policies.budget import MINUTE_SECONDS, BudgetWatch
from deepscaler.policies.outlook import Learned
from deepscaler.policies.plan import PlanPolicy
from deepscaler.policies.reactive import ReactiveFloor
from deepscaler.settings import Settings

FLOOR_SECONDS = 60.0
"""The floor under a plan goes by the mean rate of at least this long."""


def trials_of(settings: Settings, model: DemandModel, learned: Mapping[str, ScenarioSource]) -> Trials:
    """All sources on trial, as the settings ask for them; see `on_trial`."""
    step, plan = settings.collect.step, settings.scale.plan
    horizon = round(plan.horizon / step)
    asked = Asked(horizon, plan.scenarios, step, model.entry_columns, model.usual_shares)
    return on_trial(asked, learned, seasons=plan.without != "seasons")


def bootstrap_policy(settings: Settings, model: DemandModel) -> PlanPolicy:
    """`plan_bootstrap`: the plan over what live history says, without any learning."""
    return plan_policy(settings, model, trials_of(settings, model, {}), "plan_bootstrap")


def plan_policy(
    settings: Settings,
    model: DemandModel,
    source: ScenarioSource,
    name: str,
    *,
    with_floor: bool = True,
    about: Callable[[], Mapping[str, Any]] = dict,
    learned: Learned | None = None,
) -> PlanPolicy:
    """The plan by cost over the scenarios of `source`, with the reactive floor under it."""
    scale = settings.scale
    seconds = max(scale.floor.seconds, FLOOR_SECONDS)  # what passes sooner is the plan's to weigh
    below = scale.floor.model_copy(update={"seconds": seconds})
    floor = ReactiveFloor(model, below) if with_floor and scale.floor.enabled else None
    prices = Prices(scale.prices.shortage, scale.prices.start)
    step, history = settings.collect.step, scale.plan.history
    budget = budget_watch(settings, model, prices)
    trials = source if isinstance(source, Trials) else None
    load_seconds = 0.0 if trials is None else scale.plan.long_history  # only they look for days and weeks
    return PlanPolicy(
        model,
        source,
        floor,
        prices,
        history,
        step,
        name,
        about,
        learned,
        trials,
        budget,
        load_seconds,
        Altered(scale.plan.surprise, scale.plan.apart),
        [scale.guard_rails.bounds(service)[1] for service in model.services],
    )


def budget_watch(settings: Settings, model: DemandModel, prices: Prices) -> BudgetWatch | None:
    """What keeps a plan to `scale.budget`; None without one."""
    asked, rails = settings.scale.budget, settings.scale.guard_rails
    if asked is None:
        return None
    step = settings.collect.step
    day = round(asked.window / max(MINUTE_SECONDS, step))
    budget = Budget(asked.share, prices.shortage, asked.spending, day)
    sla = min(entry.sla for entry in settings.app.entries)
    bounds = None if asked.spending is None else [rails.bounds(name) for name in model.services]
    return BudgetWatch(budget, prices, model, sla, step, bounds)
