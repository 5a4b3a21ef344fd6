"""What a run is fitted with where it doesn't tell: how slow new replicas are at first is taken over once."""

from dataclasses import replace

import numpy as np
from helpers.telemetry import truth

from deepscaler.labels.demand import WARM_UP
from deepscaler.labels.record import as_slow_at_first


def test_a_run_without_starts_takes_over_how_slow_replicas_are_and_another_tells_itself():
    known = truth()
    names = known.services
    known = replace(
        known,
        boot_seconds=np.full(len(names), 78.0),
        quality={WARM_UP: dict.fromkeys(names, 60.0)},
    )
    np.testing.assert_array_equal(known.ready_seconds, 18.0)
    quiet = replace(known, boot_seconds=known.ready_seconds, quality={WARM_UP: dict.fromkeys(names, 0.0)})
    told = {WARM_UP: dict.fromkeys(names, 90.0)}
    itself = replace(known, boot_seconds=known.ready_seconds + 90, quality=told)
    np.testing.assert_array_equal(as_slow_at_first(quiet, known).boot_seconds, 78.0)
    np.testing.assert_array_equal(as_slow_at_first(itself, known).boot_seconds, 108.0)
