"""Analogs: which moments are kept, which are alike, and what a course that follows them is."""

import pytest
import torch

from model import analogs
from model.analogs import Moments, alike, from_here, remember
from model.layers import Graphs
from model.network import Network, Shape
from model.networks import build_network
from model.windows import Windows

WINDOW, HORIZON, SERVICES = 4, 3, 2
GRAPHS = Graphs(torch.eye(SERVICES), torch.eye(SERVICES))


def windows(labels: torch.Tensor, **others) -> Windows:
    """Windows over labels `[L, N]`, which are their own z-scores."""
    return Windows(labels[..., None], labels, WINDOW, HORIZON, dilation=1, **others)


class Newest(Network):
    """Its state is the newest step's change of each label."""

    def states(self, windows, graphs, ends, batch_size):
        past = windows.known(ends).past
        return past[:, -1] - past[:, -2]


def random_labels(rows: int = 40) -> torch.Tensor:
    return 5 + torch.rand(rows, SERVICES, generator=torch.Generator().manual_seed(3))


def network() -> Network:
    torch.manual_seed(1)
    sizes = {"channels": 4, "blocks": 1, "dropout": 0.0}
    return build_network("AdapGLQ", Shape(SERVICES, 1, WINDOW, HORIZON), sizes)


@pytest.mark.parametrize("made", [Newest(), network(), Network()], ids=["change", "AdapGLQ", "outline"])
def test_at_a_moment_of_the_training_what_followed_it_is_foreseen(made):
    seen = windows(random_labels(), zero=torch.zeros(SERVICES))
    kept = remember(made, seen, GRAPHS, torch.arange(WINDOW - 1, 36), 8)
    assert len(kept.states) == 33
    for end in (torch.tensor([7]), torch.tensor([30])):
        state = made.states(seen, GRAPHS, end, 1)[0]
        made_of_it = from_here(alike(kept, state, 1), seen, end)
        torch.testing.assert_close(made_of_it, seen.targets(end), rtol=0, atol=0.02)  # kept as float16


def test_with_twice_the_load_twice_as_much_follows():
    labels = random_labels()
    once, twice = windows(labels), windows(2 * labels)
    kept, end = remember(Newest(), once, GRAPHS, torch.arange(3, 36), 8), torch.tensor([20])
    state = Newest().states(once, GRAPHS, end, 1)[0]
    torch.testing.assert_close(
        from_here(alike(kept, state, 5), twice, end), 2 * from_here(alike(kept, state, 5), once, end)
    )


def test_the_nearest_states_are_alike():
    kept = Moments(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), torch.arange(4.0).view(4, 1, 1))
    assert alike(kept, torch.tensor([1.4]), 2).flatten().tolist() == [1.0, 2.0]
    assert alike(kept, torch.tensor([9.0]), 99).flatten().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_course_never_falls_below_nothing():
    """z-scores of -1 stand for the label 0."""
    seen = windows(torch.zeros(8, SERVICES), zero=-torch.ones(SERVICES))
    found = from_here(torch.full((1, HORIZON, SERVICES), -7.0), seen, torch.tensor([5]))
    torch.testing.assert_close(found, torch.full((1, HORIZON, SERVICES), -1.0))


def test_moments_that_something_unknown_followed_are_left_out():
    labels = random_labels(20)
    labels[10, 1] = torch.nan
    ends = torch.arange(3, 17)
    kept = remember(Newest(), windows(labels), GRAPHS, ends, 8)
    assert len(kept.states) == len(ends) - HORIZON
    assert remember(Newest(), windows(labels), GRAPHS, torch.tensor([8]), 8) is None


@pytest.mark.parametrize("made", [Newest(), network(), Network()], ids=["change", "AdapGLQ", "outline"])
def test_what_follows_near_silence_is_kept_as_the_most_that_is_held(made):
    """A service that is asked once in a long while: a burst is a hundred deviations, silence is none."""
    labels = torch.zeros(40, SERVICES)
    labels[20, 1], labels[:, 0] = 1e3, (0.0 if type(made) is Network else 1.0)
    kept = remember(made, windows(labels), GRAPHS, torch.arange(WINDOW - 1, 36), 8)
    assert all(torch.isfinite(part).all() for part in kept)
    largest = torch.finfo(torch.float16).max
    assert kept.followed.max() == largest and (kept.followed[:, :, 0].abs() <= 1).all()
    made_of_it = from_here(kept.followed[14:15].float(), windows(labels), torch.tensor([17]))
    assert made_of_it[0, :, 1].tolist() == pytest.approx([0.0, 0.0, 1e-3 * largest])


def test_without_states_of_its_own_a_network_goes_by_the_outline_of_the_load():
    """Rising and falling are told apart; how much load there is, and which service bears it, are not."""
    rising = torch.linspace(1, 2, WINDOW)[:, None].expand(WINDOW, SERVICES)
    shares = torch.tensor([1.9, 0.1])
    end = torch.tensor([WINDOW - 1])
    made = [
        Network().states(windows(labels, zero=torch.zeros(SERVICES)), GRAPHS, end, 8)
        for labels in (rising, 5 * rising, shares * rising, rising.flip(0))
    ]
    torch.testing.assert_close(made[1], made[0])
    torch.testing.assert_close(made[2], made[0])
    assert (made[3] - made[0]).abs().max() > 0.5


@pytest.mark.parametrize(("name", "most", "count"), [("MOST", 10, 10), ("MOST_BYTES", 50, 4)])
def test_few_are_kept_evenly_spread(name, most, count, monkeypatch):
    monkeypatch.setattr(analogs, name, most)
    labels = torch.arange(100.0)[:, None].expand(100, SERVICES).square()  # the change tells the row
    kept = remember(Newest(), windows(labels), GRAPHS, torch.arange(10, 90), 8)
    rows = (kept.states[:, 0].float() + 1) / 2
    assert len(rows) == count and rows.min() < 30 and rows.max() > 70
    assert torch.diff(rows).std() < 2
