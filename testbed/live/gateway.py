"""The gateway: the application's URLs over HTTP, each request a request of the engine."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web

from deepscaler.errors import ClusterError
from sendFlow import answers
from sendFlow.routes import ROUTES, Route
from testbed.engine.program import Program
from testbed.live.wall_clock import WallClock

LOG = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ENDPOINT: web.RequestKey[str] = web.RequestKey("endpoint", str)
BODY_BYTES = 1 << 20
BODY_SECONDS = 10.0
SECONDS_HEADER = "X-Testbed-Seconds"
"""Header of every answer: the simulated duration of its request."""


def routes_of(program: Program) -> tuple[Route, ...]:
    """The URLs of the application: from `sendFlow.routes`, else the names of its endpoints (`GET /path`)."""
    known = ROUTES.get(program.name)
    return known or tuple(
        Route(method, path, name) for name in program.endpoints for method, path in [name.split(" ", 1)]
    )


class Gateway:
    """Hands requests to the engine and answers at their simulated end, with 503 where the application failed.

    Attributes:
        answered: (endpoint, status) -> answers.
        unknown: status -> requests that reached no endpoint (404, 405: there is none; 408, 413, 500: broken).
    """

    def __init__(self, program: Program, clock: WallClock) -> None:
        self._program, self._clock = program, clock
        self.answered: Counter[tuple[str, int]] = Counter()
        self.unknown: Counter[int] = Counter()

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application(middlewares=[self._counting], client_max_size=BODY_BYTES)
        for route in routes_of(self._program):
            application.router.add_route(route.method, route.pattern, self._handler(route))
        return application

    def _handler(self, route: Route) -> Handler:
        endpoint = self._program.endpoints.index(route.endpoint)

        async def answer(request: web.Request) -> web.StreamResponse:
            async with asyncio.timeout(BODY_SECONDS):
                await request.read()
            request[ENDPOINT] = route.endpoint
            try:
                found = await asyncio.wrap_future(self._clock.submit(endpoint))
            except ClusterError as error:
                return web.Response(status=503, text=f"{error}\n")
            headers = {SECONDS_HEADER: repr(found.finish - found.start)}
            if not found.ok:
                return web.Response(status=503, text="upstream request failed\n", headers=headers)
            if route.redirect:
                return web.Response(status=302, headers={**headers, "Location": route.redirect})
            kind, body = answers.answer(self._program.name, route.endpoint, token=secrets.token_urlsafe(24))
            return web.Response(body=body, headers={**headers, "Content-Type": kind})

        return answer

    @web.middleware
    async def _counting(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            self.unknown[error.status] += 1
            raise
        except TimeoutError:
            self.unknown[408] += 1
            response = web.Response(status=408, text="the body of the request took too long\n")
            response.force_close()
            return response
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            LOG.exception("%s %s", request.method, request.path)
            self.unknown[500] += 1
            return web.Response(status=500, text="the gateway failed; see the log of the testbed\n")
        self.answered[request[ENDPOINT], response.status] += 1
        return response
