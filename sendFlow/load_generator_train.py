"""Users of Train-Ticket: locust -f sendFlow/load_generator_train.py --headless --host http://localhost:30001

Every user logs in and keeps the token it is given; a token that is refused is replaced by logging in again.
Accounts are those that the public images create; SENDFLOW_USER, SENDFLOW_PASSWORD, SENDFLOW_ADMIN_USER and
SENDFLOW_ADMIN_PASSWORD name others. Tasks and weights are those of testbed/apps/train_ticket.yaml, a second
between tasks; the load follows a trace (load_shape.py).
"""

from __future__ import annotations

import datetime
import os
import random
import sys
import uuid
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.env import Environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Locust adds only this file's directory

from sendFlow.answers import ORDER_STATES
from sendFlow.load_shape import TraceShape, load_trace
from sendFlow.users import GATEWAY, Visitor, path_of

__all__ = ["TraceShape", "TrainTicketUser"]

FAST_PLACES = [("Shang Hai", "Su Zhou"), ("Su Zhou", "Shang Hai"), ("Nan Jing", "Shang Hai")]
OTHER_PLACES = [("Shang Hai", "Nan Jing"), ("Nan Jing", "Shang Hai")]
ADMIN_TABLES = ["contacts", "stations", "trains", "configs", "prices"]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
UNPAID, PAID = ORDER_STATES["unpaid"], ORDER_STATES["paid"]
Row = dict[str, Any]


class Session:
    """One account's token, as logging in gave it."""

    def __init__(self, user: str, password: str) -> None:
        self.user, self.password = user, password
        self.account, self.token = "", ""


class TrainTicketTasks(Visitor):
    """Source: URLs, bodies and states of the public Train-Ticket's services (FudanSELab)."""

    abstract = True
    application = "train_ticket"

    def on_start(self) -> None:
        self.passenger = Session(
            os.environ.get("SENDFLOW_USER", "fdse_microservice"),
            os.environ.get("SENDFLOW_PASSWORD", "111111"),
        )
        self.clerk = Session(
            os.environ.get("SENDFLOW_ADMIN_USER", "admin"),
            os.environ.get("SENDFLOW_ADMIN_PASSWORD", "222222"),
        )
        self.log_in(self.passenger)

    # -------------------------------------------------------------------------------------------------- tasks
    @task(27)
    def login(self) -> None:
        self.log_in(self.passenger)

    @task(66)
    def search(self) -> None:
        self.trips("POST /trips/left", *random.choice(FAST_PLACES))

    @task(63)
    def search_other(self) -> None:
        self.trips("POST /trips2/left", *random.choice(OTHER_PLACES))

    @task(22)
    def book(self) -> None:
        start, end = random.choice(FAST_PLACES)
        trips = self.trips("POST /trips/left", start, end)
        if trips:
            trip = random.choice(trips)
            order = self.order_of(trip, start, end)
            self.rows(
                "GET /foods", segments={"date": order["date"], "start": start, "end": end, "trip": trip}
            )
            self.rows("POST /preserve", json=order)

    @task(17)
    def book_other(self) -> None:
        start, end = random.choice(OTHER_PLACES)
        trips = self.trips("POST /trips2/left", start, end)
        if trips:
            self.rows("POST /preserveOther", json=self.order_of(random.choice(trips), start, end))

    @task(15)
    def pay(self) -> None:
        self.pay_one("POST /order/refresh")

    @task(10)
    def pay_other(self) -> None:
        self.pay_one("POST /orderOther/refresh")

    @task(11)
    def cancel(self) -> None:
        order = self.one_order("POST /order/refresh", UNPAID, PAID)
        if order:
            self.rows("GET /cancel", segments={"order": str(order["id"]), "account": self.passenger.account})

    @task(15)
    def collect_and_enter(self) -> None:
        order = self.one_order("POST /order/refresh", PAID)
        if order:
            self.rows("GET /execute/collect", segments={"order": str(order["id"])})
            self.rows("GET /execute/enter", segments={"order": str(order["id"])})

    @task(5)
    def rebook(self) -> None:
        order = self.one_order("POST /order/refresh", PAID)
        if order:
            old, new = str(order.get("trainNumber", "")), random.choice(["G1234", "D1345"])
            body = {
                "orderId": order["id"],
                "oldTripId": old,
                "tripId": new,
                "date": travel_date(),
                "seatType": 2,
            }
            self.rows("POST /rebook", json={"loginId": self.passenger.account, **body})

    @task(5)
    def consign(self) -> None:
        order = self.one_order("POST /order/refresh")
        if order:
            parcel = {
                "id": "",
                "consignee": "someone",
                "phone": "12345677654",
                "weight": "32",
                "isWithin": False,
            }
            when = {
                "handleDate": datetime.date.today().isoformat(),
                "targetDate": f"{travel_date()} 12:00:00",
            }
            whose = {
                "accountId": self.passenger.account,
                "orderId": order["id"],
                "from": order.get("from"),
                "to": order.get("to"),
            }
            self.rows("PUT /consigns", json={**whose, **when, **parcel})

    @task(3)
    def voucher(self) -> None:
        order = self.one_order("POST /order/refresh")
        if order:
            self.rows("POST /getVoucher", json={"orderId": order["id"], "type": 1})

    @task(2)
    def quickest(self) -> None:
        start, end = random.choice(FAST_PLACES)
        self.rows(
            "POST /routePlan/quickest",
            json={"formStationName": start, "toStationName": end, "travelDate": travel_date(), "num": 5},
        )

    @task(2)
    def cheapest(self) -> None:
        self.rows("POST /travelPlan/cheapest", json=journey(*random.choice(FAST_PLACES)))

    @task(2)
    def fewest_stops(self) -> None:
        self.rows("POST /travelPlan/minStation", json=journey(*random.choice(FAST_PLACES)))

    @task(1)
    def transfer(self) -> None:
        places = {"fromStationName": "Nan Jing", "viaStationName": "Shang Hai", "toStationName": "Su Zhou"}
        self.rows("POST /travelPlan/transfer", json={**places, "travelDate": travel_date(), "trainType": ""})

    @task(2)
    def register(self) -> None:
        self.ask("GET /verifycode")
        self.rows("POST /users/register", json=new_user())
        self.rows("POST /avatar", json={"img": PIXEL})

    @task(4)
    def look_around(self) -> None:
        for endpoint in ("GET /stations", "GET /routes", "GET /news", "GET /offices"):
            self.ask(endpoint, headers=self.bearer(self.passenger))

    @task(3)
    def admin(self) -> None:
        self.rows("GET /admin/basic", self.clerk, segments={"table": random.choice(ADMIN_TABLES)})
        for endpoint in ("GET /admin/orders", "GET /admin/routes", "GET /admin/trips"):
            self.rows(endpoint, self.clerk)
        self.rows("POST /admin/users", self.clerk, json=new_user())

    # -------------------------------------------------------------------------------------------------- steps
    def log_in(self, session: Session) -> None:
        """Take a token; an answer without one counts as a failed request."""
        self.ask("GET /verifycode")
        body = {"username": session.user, "password": session.password, "verificationCode": "1234"}
        session.token = ""
        with self.ask("POST /users/login", json=body, catch_response=True) as answer:
            given = data_of(answer)
            if isinstance(given, dict) and given.get("token"):
                session.account, session.token = str(given.get("userId", "")), str(given["token"])
            elif answer.status_code == 200:
                answer.failure(f"{path_of('POST /users/login')}: no token in the answer")

    def bearer(self, session: Session) -> dict[str, str]:
        """The header that carries the token; logs in first where there is none."""
        if not session.token:
            self.log_in(session)
        return {"Authorization": f"Bearer {session.token}"} if session.token else {}

    def rows(self, endpoint: str, session: Session | None = None, **options: Any) -> list[Row]:
        """The rows that an endpoint answers with a session's token (default: the passenger's)."""
        session = session or self.passenger
        answer = self.ask(endpoint, headers=self.bearer(session), **options)
        if answer.status_code in {401, 403}:
            session.token = ""  # expired: the next request logs in
        found = data_of(answer)
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def trips(self, endpoint: str, start: str, end: str) -> list[str]:
        """Numbers of the trains that are left."""
        trips = [row.get("tripId") for row in self.rows(endpoint, json=journey(start, end))]
        return [
            f"{trip.get('type', '')}{trip.get('number', '')}" if isinstance(trip, dict) else str(trip)
            for trip in trips
            if trip
        ]

    def order_of(self, trip: str, start: str, end: str) -> Row:
        """What preserve wants to know, contact and assurance looked up."""
        contacts = self.rows("GET /contacts", segments={"account": self.passenger.account or "-"})
        assurances = self.rows("GET /assurances")
        return {
            "accountId": self.passenger.account,
            "contactsId": random.choice(contacts).get("id") if contacts else "",
            "tripId": trip,
            "seatType": random.choice(["2", "3"]),
            "date": travel_date(),
            "from": start,
            "to": end,
            "assurance": str(assurances[0].get("index", 0)) if assurances else "0",
            "foodType": 0,
        }

    def one_order(self, endpoint: str, *states: int) -> Row | None:
        """An order in one of `states` (none given: any); None where the account has none."""
        orders = [
            row for row in self.rows(endpoint, json={"loginId": self.passenger.account}) if row.get("id")
        ]
        fitting = [row for row in orders if not states or row.get("status") in states]
        return random.choice(fitting) if fitting else None

    def pay_one(self, endpoint: str) -> None:
        order = self.one_order(endpoint, UNPAID)
        if order:
            self.rows(
                "POST /inside_payment", json={"orderId": order["id"], "tripId": order.get("trainNumber", "")}
            )


class TrainTicketUser(TrainTicketTasks, FastHttpUser):
    """A passenger of Train-Ticket."""

    wait_time = constant(1)
    host = GATEWAY


def data_of(answer: Any) -> Any:
    """`data` of a JSON answer; None where it isn't one."""
    try:
        body = answer.json()
    except (ValueError, TypeError, AttributeError):
        return None
    return body.get("data") if isinstance(body, dict) else None


def travel_date() -> str:
    """Tomorrow: trains of the past aren't sold."""
    return (datetime.date.today() + datetime.timedelta(days=1)).isoformat()


def journey(start: str, end: str) -> Row:
    return {"startingPlace": start, "endPlace": end, "departureTime": travel_date()}


def new_user() -> Row:
    name = f"load-{uuid.uuid4().hex[:12]}"
    return {
        "userName": name,
        "password": uuid.uuid4().hex,
        "gender": 1,
        "documentType": 1,
        "documentNum": name,
        "email": f"{name}@example.com",
    }


@events.init.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Read the trace."""
    load_trace(environment)
