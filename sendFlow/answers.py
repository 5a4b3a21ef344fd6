"""What an emulated application answers, so that the load generators find their way through it; no locust here.

Train-Ticket's users need a token, trips, contacts and orders from earlier answers; the bodies have the fields
of its public API that `load_generator_train.py` reads. The other applications' pages are never read by their
users.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

ACCOUNT = "4d2a46c7-71cb-4cf1-b5bb-b68406d9da6f"
"""The account's id in the answers."""
ORDER_STATES = {"unpaid": 0, "paid": 1, "collected": 2, "rebooked": 3, "cancelled": 4, "used": 6}
"""`status` of an order, as Train-Ticket counts."""


def answer(application: str, endpoint: str, token: str = "") -> tuple[str, bytes]:
    """Content type and body of a successful answer.

    Args:
        application: a key of `sendFlow.routes.ROUTES`.
        endpoint: name in `testbed/apps/<application>.yaml`.
        token: what logging in gives; the caller issues it.
    """
    if application != "train_ticket":
        return "text/html; charset=utf-8", b"<!doctype html><title>testbed</title>\n"
    if endpoint == "POST /users/login":
        return "application/json", _body({"userId": ACCOUNT, "username": "testbed", "token": token})
    return "application/json", _train_ticket(endpoint)


@cache
def _train_ticket(endpoint: str) -> bytes:
    data: dict[str, Any] = {
        "POST /trips/left": [_trip("G", "1234"), _trip("D", "1345")],
        "POST /trips2/left": [_trip("Z", "1234"), _trip("K", "1345")],
        "GET /contacts": [
            {"id": f"contact-{number}", "accountId": ACCOUNT, "name": f"Contacts_{number}"}
            for number in (1, 2)
        ],
        "GET /assurances": [{"index": 1, "typeName": "Traffic Accident Assurance", "price": 3.0}],
        "POST /order/refresh": _orders("G1234"),
        "POST /orderOther/refresh": _orders("Z1234"),
    }
    return _body(data.get(endpoint, []))


def _body(data: Any) -> bytes:
    return json.dumps({"status": 1, "msg": "success", "data": data}).encode()


def _trip(kind: str, number: str) -> dict[str, Any]:
    return {
        "tripId": {"type": kind, "number": number},
        "startingStation": "Shang Hai",
        "terminalStation": "Su Zhou",
    }


def _orders(train: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"order-{state}",
            "accountId": ACCOUNT,
            "trainNumber": train,
            "status": number,
            "from": "Shang Hai",
            "to": "Su Zhou",
        }
        for state, number in ORDER_STATES.items()
    ]
