"""Means leave out what is unknown, and say NaN where all is."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np

from deepscaler.statistics import nan_mean

ROOT = Path(__file__).parents[2]
NAN = math.nan


def test_a_mean_leaves_out_what_is_unknown_and_is_unknown_where_all_is():
    assert nan_mean([1.0, NAN, 3.0, np.inf]) == 2.0
    assert math.isnan(nan_mean([])) and math.isnan(nan_mean([NAN]))


def test_means_along_an_axis_are_unknown_only_where_all_is():
    values = np.array([[1.0, NAN, NAN], [3.0, 5.0, NAN]], np.float32)
    np.testing.assert_array_equal(nan_mean(values, 0), [2.0, 5.0, NAN])
    np.testing.assert_array_equal(nan_mean(values, 1), [1.0, 4.0])
    np.testing.assert_array_equal(nan_mean(np.zeros((0, 2)), 0), [NAN, NAN])


def test_float32_is_summed_in_float64():
    values = np.full((3, 1), 0.1, np.float32)
    assert nan_mean(values, 0)[0] == float(np.float32(0.1))


def test_means_take_no_scipy():
    code = "import sys, deepscaler.statistics\nassert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
