"""How all pictures look, and how they are saved."""

import pytest

from deepscaler.pictures.style import mark, new_figure, plain_numbers, save


@pytest.mark.parametrize("raised", [OSError("No space left on device"), None])
def test_a_picture_that_cant_be_saved_leaves_the_previous_one(tmp_path, raised):
    path = tmp_path / "picture.png"
    path.write_text("the previous picture")

    class Broken:
        def savefig(self, target, **options):
            target.write(b"half a pic")
            if raised:
                raise raised

    with pytest.raises(OSError, match="No space" if raised else "cannot identify image"):
        save(Broken(), path)
    assert path.read_text() == "the previous picture"
    assert [found.name for found in tmp_path.iterdir()] == ["picture.png"]


def test_lines_are_named_beside_them():
    axis = new_figure(4, 3).subplots()
    for vertical, at_end in ((False, False), (False, True), (True, False)):
        mark(axis, 0.5, "SLA", vertical=vertical, at_end=at_end)
    assert [text.get_text() for text in axis.texts] == ["SLA"] * 3
    assert [text.xy for text in axis.texts] == [(0, 0.5), (1, 0.5), (0.5, 1)]


def test_logarithmic_axes_have_plain_numbers():
    figure = new_figure(4, 3)
    axis = figure.subplots()
    axis.set(xscale="log", xlim=(1, 1000))
    plain_numbers(axis.xaxis)
    figure.draw_without_rendering()
    shown = [label.get_text() for label in axis.get_xticklabels()]
    assert {"1", "10", "200", "500"} <= set(shown)
