"""What a controller raised or asked for and didn't live to give back: `predict_scale.py --give-back`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.autoscalers import ADVICE, MinimumWriter, autoscaler_of
from deepscaler.adapters.kubernetes.buffers import WITHOUT, expiry, listed, owned, path_of
from deepscaler.adapters.kubernetes.checked import BufferObject, Checker, HpaObject
from deepscaler.adapters.kubernetes.objects import name_of
from deepscaler.logs import OnChange
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)


class GivingBack:
    """Gives back minimums and room on nodes in the application's namespace, whoever wrote them.

    It takes no Lease. A live controller isn't disturbed: it renews what it needs before its time is over.

    Args:
        settings: those of the application.

    Attributes:
        failures: number of objects that couldn't be given back.
    """

    def __init__(self, settings: Settings) -> None:
        self._api, self.failures = KubeApi(settings.cluster), 0
        self._namespace = settings.app.namespace
        self._path = f"/apis/autoscaling/v2/namespaces/{self._namespace}/horizontalpodautoscalers"

    def run(self, now: float, *, every: bool) -> Iterator[str]:
        """A line per minimum that was given back, and per buffer that was taken away.

        Args:
            now: seconds since the epoch.
            every: also those whose time isn't over.

        Raises:
            ApiError: the autoscalers can't be read, or the buffers though they are there for this user.
        """
        yield from self._minimums(now, every=every)
        yield from self._buffers(now, every=every)

    def _buffers(self, now: float, *, every: bool) -> Iterator[str]:
        try:
            version, found = listed(self._api, self._namespace)
        except ApiError as error:
            if error.status not in WITHOUT:
                raise
            _LOG.info("there is no room on nodes to give back: %s", error)
            return
        sound = Checker(OnChange(_LOG)).sound(
            BufferObject, "CapacityBuffer", found.values(), "it stays as it is"
        )
        for item in sound:
            if owned(item) and (every or expiry(item) <= now):
                try:
                    self._api.send("DELETE", f"{path_of(version, self._namespace)}/{name_of(item)}")
                    yield f"{name_of(item)}: room on nodes given back"
                except ApiError as error:
                    self.failures += 1
                    _LOG.error("%s: stays: %s", name_of(item), error)

    def _minimums(self, now: float, *, every: bool) -> Iterator[str]:
        items = self._api.items(self._path)
        advised = [
            item for item in items if ADVICE in ((item.get("metadata") or {}).get("annotations") or {})
        ]
        sound = Checker(OnChange(_LOG)).sound(
            HpaObject, "HorizontalPodAutoscaler", advised, "its minimum stays as it is"
        )
        self.failures += len(advised) - len(sound)
        writer = MinimumWriter(self._api, self._path)
        writer.remember({name_of(item): item for item in sound})
        for item in sound:
            found, name = autoscaler_of(item), name_of(item)
            if found.advice is None:
                self.failures += 1
                _LOG.error("%s: %s; set minReplicas and remove the annotation by hand", name, found.unsound)
            elif every or found.advice.until <= now:
                try:
                    yield f"{name}: minimum {writer.write(name, None)} given back"
                except ApiError as error:
                    self.failures += 1
                    _LOG.error("%s: the minimum stays at %d: %s", name, found.minimum, error)
