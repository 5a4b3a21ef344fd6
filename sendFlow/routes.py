"""Which URL of an application is which endpoint of `testbed/apps`: a table and its look-up, without Locust.

The load generators ask by endpoint name and take the URL from here; the gateway of the testbed looks up the
endpoint of a request here. So Locust's request names, the gateway's endpoints and `app.entries` of
`config/*.yaml` are one set of names.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple
from urllib.parse import quote


class Route(NamedTuple):
    """One URL of an application.

    Attributes:
        method: HTTP method.
        pattern: path; `{word}` stands for one segment.
        endpoint: name in `testbed/apps/<application>.yaml`.
        redirect: where the application sends the browser next (302); empty: nowhere, it answers 200.
    """

    method: str
    pattern: str
    endpoint: str
    redirect: str = ""


BOUTIQUE = (
    Route("GET", "/", "GET /"),
    Route("GET", "/product/{product}", "GET /product"),
    Route("POST", "/cart", "POST /cart", redirect="/cart"),
    Route("GET", "/cart", "GET /cart"),
    Route("POST", "/setCurrency", "POST /setCurrency", redirect="/"),
    Route("POST", "/cart/checkout", "POST /cart/checkout"),
)

BOOKINFO = (
    Route("GET", "/productpage", "GET /productpage"),
    Route("GET", "/details/{product}", "GET /details"),
    Route("GET", "/reviews/{product}", "GET /reviews"),
    Route("GET", "/ratings/{product}", "GET /ratings"),
    Route("GET", "/details", "GET /details"),
    Route("GET", "/reviews", "GET /reviews"),
    Route("GET", "/ratings", "GET /ratings"),
)

# Source: the controllers of the public Train-Ticket (FudanSELab) and its nginx.conf, which sends these paths
# to the service of that name; preserveOther, routePlan, travelPlan/transferResult, routes and avatar aren't
# in that nginx.conf: benchmarks/train-ticket's gateway has to route them.
TRAIN_TICKET = (
    Route("GET", "/api/v1/verifycode/generate", "GET /verifycode"),
    Route("POST", "/api/v1/users/login", "POST /users/login"),
    Route("POST", "/api/v1/userservice/users/register", "POST /users/register"),
    Route("GET", "/api/v1/stationservice/stations", "GET /stations"),
    Route("GET", "/api/v1/routeservice/routes", "GET /routes"),
    Route("POST", "/api/v1/travelservice/trips/left", "POST /trips/left"),
    Route("POST", "/api/v1/travel2service/trips/left", "POST /trips2/left"),
    Route("POST", "/api/v1/routeplanservice/routePlan/quickestRoute", "POST /routePlan/quickest"),
    Route("POST", "/api/v1/travelplanservice/travelPlan/cheapest", "POST /travelPlan/cheapest"),
    Route("POST", "/api/v1/travelplanservice/travelPlan/minStation", "POST /travelPlan/minStation"),
    Route("POST", "/api/v1/travelplanservice/travelPlan/transferResult", "POST /travelPlan/transfer"),
    Route("GET", "/api/v1/contactservice/contacts/account/{account}", "GET /contacts"),
    Route("GET", "/api/v1/assuranceservice/assurances/types", "GET /assurances"),
    Route("GET", "/api/v1/foodservice/foods/{date}/{start}/{end}/{trip}", "GET /foods"),
    Route("POST", "/api/v1/preserveservice/preserve", "POST /preserve"),
    Route("POST", "/api/v1/preserveotherservice/preserveOther", "POST /preserveOther"),
    Route("POST", "/api/v1/orderservice/order/refresh", "POST /order/refresh"),
    Route("POST", "/api/v1/orderOtherService/orderOther/refresh", "POST /orderOther/refresh"),
    Route("POST", "/api/v1/inside_pay_service/inside_payment", "POST /inside_payment"),
    Route("GET", "/api/v1/cancelservice/cancel/{order}/{account}", "GET /cancel"),
    Route("POST", "/api/v1/rebookservice/rebook", "POST /rebook"),
    Route("PUT", "/api/v1/consignservice/consigns", "PUT /consigns"),
    Route("GET", "/api/v1/executeservice/execute/collected/{order}", "GET /execute/collect"),
    Route("GET", "/api/v1/executeservice/execute/execute/{order}", "GET /execute/enter"),
    Route("POST", "/getVoucher", "POST /getVoucher"),
    Route("GET", "/news-service/news", "GET /news"),
    Route("GET", "/office/getAll", "GET /offices"),
    Route("POST", "/api/v1/avatar", "POST /avatar"),
    Route("GET", "/api/v1/adminbasicservice/adminbasic/{table}", "GET /admin/basic"),
    Route("GET", "/api/v1/adminorderservice/adminorder", "GET /admin/orders"),
    Route("GET", "/api/v1/adminrouteservice/adminroute", "GET /admin/routes"),
    Route("GET", "/api/v1/admintravelservice/admintravel", "GET /admin/trips"),
    Route("POST", "/api/v1/adminuserservice/users", "POST /admin/users"),
)

ROUTES: dict[str, tuple[Route, ...]] = {
    "boutique": BOUTIQUE,
    "boutique_real": BOUTIQUE,
    "bookinfo": BOOKINFO,
    "train_ticket": TRAIN_TICKET,
}
"""Every URL by application. Of several rows of an endpoint the generators ask the first."""


def route_of(application: str, method: str, target: str) -> Route | None:
    """The route of a request; None where the application has no such URL.

    Args:
        application: a key of `ROUTES`.
        method: HTTP method; HEAD is served as GET.
        target: path of the request, with or without a query.
    """
    path = target.partition("?")[0]
    method = "GET" if method == "HEAD" else method
    plain, patterned = _index(application)
    found = plain.get((method, path))
    return found or next(
        (route for expression, route in patterned if route.method == method and expression.fullmatch(path)),
        None,
    )


def endpoint_of(application: str, method: str, target: str) -> str | None:
    """The endpoint of a request, as `testbed/apps/<application>.yaml` names it; None where there is none."""
    route = route_of(application, method, target)
    return route.endpoint if route else None


def url_of(application: str, endpoint: str, **segments: str) -> tuple[str, str]:
    """Method and path that ask an endpoint; `segments` fill the pattern (escaped).

    Raises:
        KeyError: no such endpoint, or a segment is missing.
    """
    route = _by_endpoint(application)[endpoint]
    return route.method, route.pattern.format_map(
        {name: quote(value, safe="") for name, value in segments.items()}
    )


@cache
def _index(application: str) -> tuple[dict[tuple[str, str], Route], list[tuple[re.Pattern[str], Route]]]:
    routes = ROUTES[application]
    plain = {(route.method, route.pattern): route for route in routes if "{" not in route.pattern}
    return plain, [
        (re.compile(re.sub(r"\{\w+\}", "[^/]+", route.pattern)), route)
        for route in routes
        if "{" in route.pattern
    ]


@cache
def _by_endpoint(application: str) -> dict[str, Route]:
    return {route.endpoint: route for route in reversed(ROUTES[application])}
