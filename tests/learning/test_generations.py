"""A bundle and the one before it: kept, exchanged, and never absent."""

import os

import pytest
from helpers.bundles import write_bundle

from deepscaler.errors import BundleError
from deepscaler.learning.bundle import load_bundle, side_path
from deepscaler.learning.generations import candidate_of, previous_of, promote, roll_back


def means(path):
    return load_bundle(path).normalizer.label_mean.tolist()


def written(path, *values):
    for value in values:
        write_bundle(candidate_of(path), means=(value, value, value))
        promote(path)
    return path


def test_the_bundle_before_is_kept_with_what_belongs_to_it_and_no_more(tmp_path):
    path = written(tmp_path / "a.pt", 1, 2, 3)
    assert means(path) == [3] * 3 and means(previous_of(path)) == [2] * 3
    names = [
        "a.affinity.csv",
        "a.json",
        "a.previous.affinity.csv",
        "a.previous.json",
        "a.previous.pt",
        "a.pt",
    ]
    assert sorted(item.name for item in tmp_path.iterdir()) == names
    assert '"label_mean": [\n' in side_path(previous_of(path), ".json").read_text()


def test_the_same_bundle_once_more_leaves_the_one_before(tmp_path):
    path = written(tmp_path / "a.pt", 1, 2, 2)
    assert means(path) == [2] * 3 and means(previous_of(path)) == [1] * 3


def test_rolling_back_exchanges_the_two_and_done_twice_changes_nothing(tmp_path):
    path = written(tmp_path / "a.pt", 1, 2)
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    restored, replaced = roll_back(path)
    assert means(path) == [1] * 3 and means(previous_of(path)) == [2] * 3 and restored != replaced
    assert roll_back(path) == (replaced, restored)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before


def test_without_a_bundle_before_or_with_a_broken_one_nothing_is_exchanged(tmp_path):
    path = written(tmp_path / "a.pt", 1)
    with pytest.raises(BundleError, match="keeps one when it writes"):
        roll_back(path)
    previous_of(path).write_bytes(b"broken")
    with pytest.raises(BundleError, match="no bundle with a checksum"):
        roll_back(path)
    assert means(path) == [1] * 3


@pytest.mark.parametrize("action", ["promote", "roll_back"])
@pytest.mark.parametrize("moves", range(6))
def test_a_kill_at_any_moment_leaves_a_whole_bundle(action, moves, tmp_path, monkeypatch):
    """Each file is moved into place at once; the process dies after so many moves."""
    path = written(tmp_path / "a.pt", 1, 2)
    write_bundle(candidate_of(path), means=(3, 3, 3))
    left, move = [moves], os.replace

    def dying(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        move(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        {"promote": promote, "roll_back": roll_back}[action](path)
    monkeypatch.undo()
    assert means(path)[0] in (1, 2, 3) and means(previous_of(path))[0] in (1, 2)
