"""A new bundle takes over while the controller runs: it is read and tried outside the ticks.

At each turn of the loop a thread looks at the file. A file that changed and is the same at two looks is read,
checked as at a start, and tried on the newest metrics. Only then its policy takes the place of the old one,
between two ticks. A bundle that fails in any of this changes nothing but what the log and `Model` say.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deepscaler.errors import BundleError, DeepScalerError
from deepscaler.learning.bundle_file import read_bundle_file
from deepscaler.policies.base import Observation, Policy
from deepscaler.policies.registry import bundle_path, make_policy
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
Signature = tuple[int, int, int]
"""Inode, time of the last change in nanoseconds, and size of a file."""
Start = Callable[[Callable[[], None]], Callable[[], bool]]
"""Starts some work; what it returns tells whether the work still goes on."""


@dataclass(frozen=True)
class Model:
    """Which bundle decides, and what became of newer ones. It never changes; a new one takes its place.

    Attributes:
        path: the file that is watched; "" if the policy has no bundle.
        sha256: of the bundle that decides; "" if there is none.
        since: when it began to decide, in seconds since the epoch.
        trained_until: time of the newest sample that it was trained on, in seconds since the epoch; None if
            unknown.
        taken: how many bundles took over since the start.
        refused: how many files weren't fit to.
        refusal: why the newest file doesn't decide; "" if it does.
    """

    path: str
    sha256: str
    since: float
    trained_until: float | None = None
    taken: int = 0
    refused: int = 0
    refusal: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The entry `model` of run.json."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Found:
    policy: Policy
    sha256: str


def in_background(work: Callable[[], None]) -> Callable[[], bool]:
    """Start the work in a thread of its own, which doesn't keep the process from ending."""
    thread = threading.Thread(target=work, name="renewal", daemon=True)
    thread.start()
    return thread.is_alive


class Renewal:
    """Watches the file of a bundle, and has the policy over a new one ready.

    Args:
        policy: the one that decides now.
        path: of its bundle; None: there is nothing to watch.
        make: makes the policy anew from the file.
        now: seconds since the epoch.
        start: starts a look at the file.

    Attributes:
        model: which bundle decides.
    """

    def __init__(
        self,
        policy: Policy,
        path: Path | None,
        make: Callable[[], Policy],
        now: float,
        start: Start = in_background,
    ) -> None:
        learned = policy.learned()
        sha256 = "" if learned is None else learned.sha256
        self.model = Model("" if path is None else str(path), sha256, now, _trained_until(policy))
        self._path, self._make, self._start = path, make, start
        self._looking: Callable[[], bool] = lambda: False
        self._seen: Signature | None = None
        self._read: Signature | None = None
        self._asked = False
        self._found: _Found | None = None

    def ask(self) -> None:
        """Read the file at the next look, whether or not it changed: what SIGHUP does."""
        self._asked = True

    def newest(self, now: float, observation: Observation | None) -> Policy | None:
        """The policy over a new bundle if one was found good; None if the old one goes on deciding.

        It returns at once, and starts the next look unless one is under way.

        Args:
            now: seconds since the epoch.
            observation: the newest one that nothing was held for; a new bundle is tried on it.
        """
        if self._path is None or self._looking():
            return None
        found, self._found = self._found, None
        if found is not None:
            model, log_as = self.model, "%s: the bundle %s takes over from %s"
            log.info(log_as, self._path, found.sha256[:12], model.sha256[:12] or "none")
            taken, until = model.taken + 1, _trained_until(found.policy)
            self.model = Model(model.path, found.sha256, now, until, taken, model.refused)
        path = self._path
        try:
            self._looking = self._start(lambda: self._look(path, observation))
        except RuntimeError as error:  # no more threads can be had
            self._refuse(f"{path}: can't be looked at ({error})", counted=False)
        return None if found is None else found.policy

    def _look(self, path: Path, observation: Observation | None) -> None:
        """Read the file if it was asked for, or changed and isn't being written any more."""
        signature = _signature(path)
        asked, self._asked = self._asked, False
        settled, self._seen = signature == self._seen, signature
        if signature is None:
            self._refuse(f"{path}: no such file any more", counted=False)
        elif asked or (settled and signature != self._read):
            self._read = signature
            self._judge(path, observation)

    def _judge(self, path: Path, observation: Observation | None) -> None:
        try:
            file = read_bundle_file(path)
            if file.sha256 == self.model.sha256:
                self.model = replace(self.model, refusal="")
                return
            policy = self._make()
            if observation is not None:
                _rehearse(policy, observation, path)
        except DeepScalerError as error:
            self._refuse(str(error))
        except Exception as error:  # of a file from elsewhere anything may come
            self._refuse(f"{path}: not usable ({type(error).__name__}: {error})")
        else:
            self._found = _Found(policy, file.sha256)

    def _refuse(self, why: str, counted: bool = True) -> None:
        if why != self.model.refusal:
            log.error("%s; the bundle %s goes on deciding", why, self.model.sha256[:12])
        self.model = replace(self.model, refused=self.model.refused + counted, refusal=why)


def renewal_of(policy: Policy, settings: Settings, now: float) -> Renewal:
    """Watches the bundle that the settings name for the policy."""
    return Renewal(
        policy, bundle_path(policy.name, settings), lambda: make_policy(policy.name, settings), now
    )


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _trained_until(policy: Policy) -> float | None:
    learned = policy.learned()
    return None if learned is None else learned.trained_until


def _rehearse(policy: Policy, observation: Observation, path: Path) -> None:
    """Decide once, to no effect.

    Raises:
        BundleError: a forecast failed, which a policy says only in what it describes.
    """
    policy.decide(observation)
    if _failures(policy.describe()):
        raise BundleError(f"{path}: its forecast of the newest metrics failed, see the log; train again")


def _failures(described: object) -> int:
    """What the counters `failed` anywhere in a description add up to."""
    if not isinstance(described, Mapping):
        return 0
    own = described.get("failed", 0)
    return (own if isinstance(own, int) else 0) + sum(_failures(part) for part in described.values())
