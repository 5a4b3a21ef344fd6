"""What monitoring asks of a live testbed: the /metrics page, and Jaeger's dependencies."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from deepscaler.settings import App
from testbed.cluster.counters import counter_snapshot
from testbed.cluster.exposition import CounterSnapshot, exposition_text, workload_of
from testbed.engine.program import Program
from testbed.live.wall_clock import WallClock

PAGE_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HISTORY_SECONDS = 5.0
HISTORY_LENGTH = 17_280
"""A day of call counts."""
OUTSIDE = "istio-ingressgateway"
DAY_MILLISECONDS = 86_400_000


class MetricsPage:
    """cAdvisor, Istio and kube-state-metrics in one page, and the testbed's own counters below."""

    def __init__(
        self, program: Program, app: App, clock: WallClock, answered: Mapping[tuple[str, int], int]
    ) -> None:
        self._program, self._app, self._clock, self._answered = program, app, clock, answered

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application()
        application.router.add_get("/metrics", self._page)
        return application

    def snapshot(self) -> CounterSnapshot:
        """The counters now, in real time."""
        return counter_snapshot(self._program, self._app, self._clock.snapshot(), self._clock.epoch)

    def text(self) -> str:
        """The page."""
        own = [
            f'testbed_gateway_requests_total{{endpoint="{endpoint}",code="{code}"}} {count}'
            for (endpoint, code), count in sorted(self._answered.items())
        ]
        own.append(f"testbed_requests_in_flight {self._clock.in_flight}")
        steps = list(self._clock.step_seconds)
        own += [
            f'testbed_step_seconds{{quantile="{q}"}} {float(np.quantile(steps, q))!r}'
            for q in (0.5, 0.99)
            if steps
        ]
        return exposition_text(self.snapshot(), self._app) + "\n".join(own) + "\n"

    async def _page(self, request: web.Request) -> web.Response:
        text = await asyncio.to_thread(self.text)
        return web.Response(body=text.encode(), headers={"Content-Type": PAGE_TYPE})


class Dependencies:
    """Jaeger's `/api/dependencies`, from the engine's counters of calls (no request is left out by sampling).

    Args:
        now: seconds since the epoch.
    """

    def __init__(
        self, program: Program, app: App, clock: WallClock, now: Callable[[], float] = time.time
    ) -> None:
        names = [workload_of(app, name) for name in program.services]
        self._pairs = [
            (names[caller] if caller >= 0 else OUTSIDE, names[callee]) for caller, callee in program.edges
        ]
        self._clock, self._now = clock, now
        self._history: list[tuple[float, NDArray[np.int64]]] = []

    def application(self) -> web.Application:
        """The web application, with and without Istio's prefix."""
        application = web.Application()
        for prefix in ("", "/jaeger"):
            application.router.add_get(f"{prefix}/api/dependencies", self._answer)
        return application

    def sample(self) -> NDArray[np.int64]:
        """Remember the counters of now, `[E]`."""
        counts: NDArray[np.int64] = self._clock.snapshot().edges[:, 1:].sum(axis=1)
        self._history.append((self._now(), counts))
        del self._history[:-HISTORY_LENGTH]
        return counts

    def between(self, start: float, end: float) -> dict[tuple[str, str], int]:
        """Calls answered in (start, end], to the samples' resolution."""
        recent = end >= self._now() - HISTORY_SECONDS
        counts = (self.sample() if recent else self._at(end)) - self._at(start)
        return {pair: int(count) for pair, count in zip(self._pairs, counts, strict=True) if count > 0}

    def _at(self, moment: float) -> NDArray[np.int64]:
        place = bisect_right(self._history, moment, key=lambda sample: sample[0])
        return self._history[place - 1][1] if place else np.zeros(len(self._pairs), np.int64)

    async def _answer(self, request: web.Request) -> web.Response:
        values = {}
        for name, default in (("endTs", self._now() * 1000), ("lookback", DAY_MILLISECONDS)):
            text = request.query.get(name, str(round(default)))
            try:
                values[name] = int(text)
            except ValueError:
                message = (
                    f"unable to parse param '{name}': strconv.ParseInt: parsing \"{text}\": invalid syntax"
                )
                return web.json_response(_envelope(None, [{"code": 400, "msg": message}]), status=400)
        end = values["endTs"] / 1000
        found = self.between(end - values["lookback"] / 1000, end)
        data = [
            {"parent": parent, "child": child, "callCount": count} for (parent, child), count in found.items()
        ]
        return web.json_response(_envelope(data, None))


def _envelope(
    data: list[dict[str, object]] | None, errors: list[dict[str, object]] | None
) -> dict[str, object]:
    return {"data": data, "total": 0, "limit": 0, "offset": 0, "errors": errors}
