"""Joint scenarios: what a template keeps, and what a forecast makes of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.joint import LEVELS, courses, templates


def normal_grid(middle: torch.Tensor, width: float = 1.0) -> torch.Tensor:
    """Quantiles `[Q, ...]` of normal distributions around `middle`."""
    levels = torch.tensor(LEVELS)
    offsets = width * torch.distributions.Normal(0.0, 1.0).icdf(levels)
    return middle[None] + offsets.view(-1, *[1] * middle.dim())


def test_the_forecast_of_a_template_gives_back_what_came():
    generator = torch.Generator().manual_seed(1)
    middle = torch.randn(6, 3, 2, generator=generator)
    came = middle + 0.8 * torch.randn(6, 3, 2, generator=generator).clamp(-1.5, 1.5)
    grid = normal_grid(middle)
    found = templates(grid, came, 6)
    again = torch.stack([courses(grid[:, index], found)[index] for index in range(6)])
    torch.testing.assert_close(again, came, rtol=0, atol=1e-4)


def test_a_wider_forecast_spreads_the_same_template_wider():
    middle = torch.zeros(4, 2, 2)
    came = torch.tensor([-1.0, 0.0, 0.5, 1.2])[:, None, None].expand(4, 2, 2)
    found = templates(normal_grid(middle), came, 4)
    narrow = courses(normal_grid(middle[0], 1.0), found)
    wide = courses(normal_grid(middle[0], 3.0), found)
    torch.testing.assert_close(wide, 3 * narrow, rtol=1e-4, atol=1e-4)


def test_services_that_missed_together_miss_together():
    generator = torch.Generator().manual_seed(2)
    shared = torch.randn(200, 1, 1, generator=generator).clamp(-2, 2).expand(200, 3, 2)
    found = templates(normal_grid(torch.zeros(200, 3, 2)), shared, 100)
    made = courses(normal_grid(torch.tensor([[5.0, 50.0]] * 3)), found)  # [K, 3, 2]
    apart = made - torch.tensor([5.0, 50.0])
    torch.testing.assert_close(apart[:, :, 0], apart[:, :, 1], rtol=1e-4, atol=1e-3)
    assert apart.std() == pytest.approx(1.0, rel=0.2)


def test_residuals_stand_in_for_quantiles():
    made, came = torch.full((1, 5, 2, 2), 3.0), torch.arange(20.0).reshape(5, 2, 2)
    found = templates(made, came, 5)
    torch.testing.assert_close(courses(torch.full((1, 2, 2), 10.0), found), came + 7)


def test_windows_with_an_unknown_label_are_no_templates():
    came = torch.zeros(5, 2, 2)
    came[1, 0, 0] = came[3, 1, 1] = torch.nan
    assert len(templates(torch.zeros(1, 5, 2, 2), came, 10)) == 3
    assert len(templates(torch.zeros(1, 5, 2, 2), torch.full((5, 2, 2), torch.nan), 10)) == 0


@settings(max_examples=50, deadline=None)
@given(value=st.floats(-50, 50), width=st.floats(0.0, 5.0))
def test_courses_never_leave_the_grid_by_more_than_a_tail(value: float, width: float):
    grid = normal_grid(torch.zeros(1, 1, 1), width)
    found = templates(grid, torch.full((1, 1, 1), value), 1)
    made = float(courses(grid[:, 0], found))
    low, high = float(2 * grid[0] - grid[1]), float(2 * grid[-1] - grid[-2])
    assert low - 1e-4 <= made <= high + 1e-4
