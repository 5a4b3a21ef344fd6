"""The page of plots beside a data set with `required` labels."""

import numpy as np
import pytest
from helpers import telemetry as app

from deepscaler.panel import MetricPanel
from deepscaler.pictures.labels import draw_labels


@pytest.mark.parametrize("changes", [{}, {"response": None}], ids=["whole", "without a response fit"])
def test_the_page_is_drawn_also_where_a_service_was_never_seen(changes, tmp_path):
    panel = app.telemetry(120)
    values = panel.values.copy()
    values[:, 1] = np.nan  # a service that nobody ever saw
    values[40:80, 0] = np.nan
    found = app.diagnosed(MetricPanel(panel.times, panel.services, panel.features, values), 90, **changes)
    draw_labels(found, tmp_path / "labels.png", "shop")
    assert (tmp_path / "labels.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.png"]
