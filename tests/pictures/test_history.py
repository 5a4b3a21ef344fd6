"""The picture of a training's course."""

import pandas as pd

from deepscaler.pictures.history import draw_history


def test_phases_known_or_not_are_drawn(tmp_path):
    history = pd.DataFrame(
        {
            "phase": ["predictor", "predictor", "graph", "joint", "another_phase"],
            "training": [0.5, 0.4, 0.35, 0.3, 0.3],
            "validation": [0.6, 0.5, 0.4, 0.45, 0.5],
            "edges": [0, 6, 6, 4, 4],
            "learning_rate": [0.01, 0.01, 0.005, 0.005, 0.001],
        }
    )
    draw_history(history, tmp_path / "AdapGLA.history.png", "AdapGLA on shop")
    assert (tmp_path / "AdapGLA.history.png").read_bytes().startswith(b"\x89PNG")
