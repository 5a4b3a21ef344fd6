"""Users of Online Boutique or Bookinfo, for Locust.

locust -f sendFlow/load_generator.py --headless --host http://localhost:30001

`--application` or SENDFLOW_APPLICATION says which: boutique (default), bookinfo, or a YAML whose
`testbed.application` is one of these; the YAML or one that it extends may say so. A user does one task after
the other and pauses for a second in between. The number of users follows a trace (load_shape.py).
"""

from __future__ import annotations

import datetime
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, constant, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Locust adds only this file's directory

from deepscaler.errors import SettingsError
from deepscaler.settings.loading import read_document
from sendFlow.load_shape import TraceShape, load_trace
from sendFlow.users import GATEWAY, Visitor

__all__ = ["BookinfoUser", "BoutiqueUser", "TraceShape"]

PRODUCTS = [
    "0PUK6V6EV0",
    "1YMWWN1N4O",
    "2ZYFJ3GM2N",
    "66VCHSJNUP",
    "6E92ZMYYFZ",
    "9SIQT8TOJO",
    "L9ECAV7KIM",
    "LS4PSXUNUM",
    "OLJCESPC7Z",
]
CURRENCIES = ["EUR", "USD", "JPY", "CAD", "GBP", "TRY"]
QUANTITIES = [1, 2, 3, 4, 5, 10]


class BoutiqueTasks(Visitor):
    """What customers of Online Boutique do.

    Source: the load generator of the README and the public one of Online Boutique (tasks, weights, products).
    """

    abstract = True
    application = "boutique"

    @task(1)
    def index(self) -> None:
        self.ask("GET /")

    @task(2)
    def setCurrency(self) -> None:
        self.ask("POST /setCurrency", form={"currency_code": random.choice(CURRENCIES)})

    @task(10)
    def browse(self) -> None:
        self.ask("GET /product", segments={"product": random.choice(PRODUCTS)})

    @task(2)
    def viewCart(self) -> None:
        self.ask("GET /cart")

    @task(3)
    def addToCart(self) -> None:
        product = random.choice(PRODUCTS)
        self.ask("GET /product", segments={"product": product})
        self.ask("POST /cart", form={"product_id": product, "quantity": random.choice(QUANTITIES)})

    @task(1)
    def checkout(self) -> None:
        self.addToCart()
        self.ask("POST /cart/checkout", form=order_form())


class BookinfoTasks(Visitor):
    """What readers of Bookinfo do: they ask its four entries equally often.

    Source: the load of the README.
    """

    abstract = True
    application = "bookinfo"

    @task(1)
    def productpage(self) -> None:
        self.ask("GET /productpage")

    @task(1)
    def details(self) -> None:
        self.ask("GET /details", segments={"product": "0"})

    @task(1)
    def reviews(self) -> None:
        self.ask("GET /reviews", segments={"product": "0"})

    @task(1)
    def ratings(self) -> None:
        self.ask("GET /ratings", segments={"product": "0"})


class BoutiqueUser(BoutiqueTasks, FastHttpUser):
    """A customer of Online Boutique."""

    wait_time = constant(1)
    host = GATEWAY


class BoutiqueRealUser(BoutiqueTasks, FastHttpUser):
    """A customer as ScalerEval recorded them (`testbed/apps/boutique_real.yaml`)."""

    application = "boutique_real"
    wait_time = between(1, 10)
    host = GATEWAY


BoutiqueRealUser.tasks = list(
    Counter(
        {**Counter(BoutiqueTasks.tasks), BoutiqueTasks.viewCart: 3, BoutiqueTasks.addToCart: 2}
    ).elements()
)


class BookinfoUser(BookinfoTasks, FastHttpUser):
    """A reader of Bookinfo."""

    wait_time = constant(1)
    host = GATEWAY


USERS = {user.application: user for user in (BoutiqueUser, BoutiqueRealUser, BookinfoUser)}


def order_form() -> dict[str, Any]:
    """A checkout form; the card is the public demo's."""
    return {
        "email": "someone@example.com",
        "street_address": "1600 Amphitheatre Parkway",
        "zip_code": "94043",
        "city": "Mountain View",
        "state": "CA",
        "country": "United States",
        "credit_card_number": "4432-8015-6152-0454",
        "credit_card_expiration_month": "1",
        "credit_card_expiration_year": str(datetime.date.today().year + 2),
        "credit_card_cvv": "672",
    }


def application_of(text: str) -> str:
    """The application that `--application` names, by its name or by the path of a YAML.

    Raises:
        SettingsError: it is none of `USERS`, or the YAML can't be read or names no application.
    """
    name: object = text
    if Path(text).suffix in {".yaml", ".yml"}:
        testbed = read_document(text).get("testbed")
        name = testbed.get("application") if isinstance(testbed, dict) else None
        if not isinstance(name, str):
            raise SettingsError(
                f"{text}: expected testbed.application, there or in a file that it extends; add it or "
                f"name one of {', '.join(USERS)}"
            )
    if name == "train_ticket":
        raise SettingsError(
            f"{text}: Train-Ticket has users of its own: sh sendFlow/sendLoop.sh --application train_ticket, "
            "or locust -f sendFlow/load_generator_train.py"
        )
    if name not in USERS:
        found = "" if name == text else f", found testbed.application {name}"
        raise SettingsError(f"{text}: expected one of {', '.join(USERS)} or train_ticket{found}")
    return str(name)


@events.init_command_line_parser.add_listener
def add_application(parser: Any) -> None:
    """Add the option that chooses the users."""
    parser.add_argument(
        "--application",
        env_var="SENDFLOW_APPLICATION",
        default="boutique",
        help="boutique, boutique_real, bookinfo, or a YAML with testbed.application (there or in a file "
        "that it extends)",
    )


@events.init.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Keep the users of the chosen application, and read the trace.

    Workers keep the users of all applications: the master tells them which to start.
    """
    options = environment.parsed_options
    if options is not None and not options.user_classes and not isinstance(environment.runner, WorkerRunner):
        try:
            environment.user_classes = [USERS[application_of(options.application)]]
        except SettingsError as error:
            sys.exit(f"--application: {error}")
    load_trace(environment)
