"""The controller's own files: a bad disk and torn lines cost rows, never a decision or a start."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.fakes import START, FakeCluster, ScriptedPolicy, make_settings
from helpers.paths import ROOT

from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.control.controller import Controller
from deepscaler.control.live import run_live
from deepscaler.control.lock import only_writer
from deepscaler.control.recorder import Recorder
from deepscaler.control.self_metrics import exposition
from deepscaler.control.tables import Table, moment, whole, word
from deepscaler.control.watch import Watch
from deepscaler.errors import ClusterError
from deepscaler.policies.base import Proposal, Reason
from deepscaler.runs import read_run

pytestmark = pytest.mark.stress


def wants(replicas: float) -> ScriptedPolicy:
    return ScriptedPolicy(lambda _now, _service: replicas)


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int = 0) -> None:
    """From now on a write takes `room` bytes, and the next one finds the disk full."""
    write, left = os.write, [room]

    def full(handle: int, data: bytes) -> int:
        taken = min(left[0], len(data))
        left[0] -= taken
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:taken])

    monkeypatch.setattr("deepscaler.control.tables.os.write", full)


def test_a_full_disk_costs_rows_and_no_decision(tmp_path, monkeypatch, caplog):
    cluster, recorder = FakeCluster(replicas={"web": 6}), Recorder(tmp_path)
    settings = make_settings(guard_rails={"scale_down_window": 0.0})
    controller = Controller(cluster, wants(3.0), settings, recorder)
    with monkeypatch.context() as patch:
        fill_disk(patch, room=100)
        controller.run(30.0)
    assert cluster.replicas == {"web": 3, "api": 3, "db": 3} and controller.failed_ticks == 0
    assert controller.statistics.lost_rows == 12 == recorder.lost
    assert caplog.text.count("rows are lost, deciding goes on") == 2  # once per file
    assert "deepscaler_lost_rows_total 12.0\n" in exposition(Watch(controller, settings)).decode()
    controller.run(30.0)
    assert "rows are recorded again; 6 were lost" in caplog.text
    for name in ("decisions", "pods"):
        lines = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert lines[0].startswith("time,service,") and len({line.count(",") for line in lines}) == 1


@pytest.mark.parametrize("obstacle", ["a file in its way", "a directory as decisions.csv"])
def test_a_directory_that_cant_be_written_costs_rows_and_no_decision(obstacle, tmp_path):
    if obstacle == "a file in its way":
        (tmp_path / "scripted-0").write_text("")
    else:
        (tmp_path / "scripted-0" / "decisions.csv").mkdir(parents=True)
    cluster = FakeCluster()
    run_live(cluster, wants(6.0), make_settings(run_dir=str(tmp_path), duration=30.0))
    assert cluster.replicas == {"web": 6, "api": 6, "db": 6}


WHOLE = "2026-01-05T00:00:{:02d}Z,web,4,4,8.0,,8,8,forecast,act,\n"
HEADER = "time,service,current,ready,predicted,floor,target,applied,reason,mode,why\n"


@pytest.mark.parametrize(
    ("broken", "lines"),
    [
        (WHOLE.format(0)[:31] + WHOLE.format(5), 1),
        ("2026-01-0" + WHOLE.format(5), 1),
        ("\0" * 4096, 1),
        ("\0" * 70 + "\n", 1),
        (WHOLE.format(5)[:-9], 1),
        (WHOLE.format(5).replace(",4,", ",4.5x,"), 1),
        (WHOLE.format(5).replace("2026-01", "2026-99"), 1),
        (WHOLE.format(5).replace("web", '"web'), 1),
        ("\n\n", 2),
    ],
)
def test_torn_and_glued_lines_are_left_out_counted_and_dont_end_the_start(broken, lines, tmp_path, caplog):
    (tmp_path / "decisions.csv").write_text(HEADER + WHOLE.format(0) + broken)
    recorder = Recorder(tmp_path)
    cluster = FakeCluster(clock=START + 15, replicas={"web": 8})
    controller = Controller(cluster, wants(2.0), make_settings(), recorder)
    controller.run(30.0)
    rows = controller.decisions()
    assert list(rows.loc[rows["service"] == "web", "time"] - START) == [0, 15, 30]
    assert list(rows.loc[rows["service"] == "web", "target"]) == [8, 8, 8]  # the history was restored
    assert controller.statistics.skipped_rows == lines
    assert f"{lines} torn or broken lines left out" in caplog.text


EARLIER = HEADER.replace(",why", "")
"""The columns of earlier versions."""


@pytest.mark.parametrize(
    ("header", "line", "restored"),
    [
        (EARLIER, WHOLE.replace(",\n", "\n"), [8]),
        (HEADER.replace("mode,why", "why,mode,more"), WHOLE.replace("act,", ",act,x"), [8]),
        ("time,service\n", "2026-01-05T00:00:{:02d}Z,web\n", []),
        ("a,b,c\n", "1,2,3\n", []),
    ],
    ids=[
        "of an earlier version",
        "of a later version",
        "without columns that are needed",
        "of something else",
    ],
)
def test_a_file_of_other_columns_is_kept_aside_and_what_it_tells_counts(
    header, line, restored, tmp_path, caplog
):
    content = header + line.format(0)
    (tmp_path / "decisions.csv").write_text(content)
    recorder = Recorder(tmp_path)
    assert list(recorder.recent(START)["target"]) == restored
    Controller(FakeCluster(clock=START + 15), wants(2.0), make_settings(), recorder).run(30.0)
    kept = tmp_path / "decisions.1.csv"
    assert kept.read_text() == content and recorder.skipped == 0
    [told] = [one.message for one in caplog.records if "another version" in one.message]
    assert told.startswith(f"{tmp_path / 'decisions.csv'} has the columns") and told.endswith(
        f"kept as {kept}"
    )
    lines = (tmp_path / "decisions.csv").read_text().splitlines()
    assert f"{lines[0]}\n" == HEADER and len(lines) == 7
    again = Recorder(tmp_path)  # which has nothing to move any more
    assert sorted(path.name for path in tmp_path.glob("d*")) == ["decisions.1.csv", "decisions.csv"]
    assert len(again.recent(START)) == 6 + len(restored)


def test_what_a_policy_says_is_written_when_it_changes(tmp_path):
    policy = wants(4.0)
    policy.decide = lambda _observation: {"web": Proposal(4.0, Reason.PLAN, 4.0, why=next(said))}
    memory, disk = Recorder(), Recorder(tmp_path)
    for recorder in (memory, disk):
        said = iter(['a, "b"', 'a, "b"', "c", "", "c", "c"])
        Controller(FakeCluster(("web",)), policy, make_settings(("web",)), recorder).run(90.0)
        assert list(recorder.decisions()["why"]) == ['a, "b"', "", "c", "", "c", ""]
    assert disk.skipped == 0


@pytest.mark.parametrize("start", [b"", b"time,serv", b"\0" * 512, b"\xff\xfe"])
def test_a_file_without_a_whole_header_gets_one(start, tmp_path):
    (tmp_path / "pods.csv").write_bytes(start)
    Recorder(tmp_path)
    assert (tmp_path / "pods.csv").read_text() == "time,service,spec,starting,ready\n"


def test_bytes_that_are_no_text_and_a_tail_that_another_process_tore_cost_their_line(tmp_path):
    (tmp_path / "pods.csv").write_bytes(
        b"time,service,spec,starting,ready\n2026-01-05T00:00:00Z,w\xff,1,0,1\n"
    )
    recorder = Recorder(tmp_path)
    with (tmp_path / "pods.csv").open("a") as file:
        file.write("2026-01-05T00:0")
    controller = Controller(FakeCluster(), wants(4.0), make_settings(), recorder)
    controller.run(15.0)
    assert len(recorder.pods()) == 3 and recorder.skipped == 2


# ------------------------------------------------------------------------------------------------------ size
def table(path: Path, largest: int = 1000) -> Table:
    return Table(path / "t.csv", {"time": moment, "service": word, "count": whole}, largest=largest, kept=2)


def row(second: int) -> str:
    return f"{utc_text(START + second)},web,{second}\n"


def test_a_file_that_has_grown_is_moved_aside_and_the_oldest_is_deleted(tmp_path):
    growing = table(tmp_path)
    for second in range(400):
        growing.append(row(second), 1)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["t.1.csv", "t.2.csv", "t.csv"] and max(sizes.values()) <= 1050
    again = table(tmp_path)
    assert [int(found[2]) for found in again.since(START + 380)] == list(range(380, 400))  # across two files
    assert growing.lost == again.lost == again.skipped == 0


@pytest.mark.parametrize("rows", [30, 31, 45, 70, 400])
def test_the_first_and_the_last_row_are_those_of_all_files_that_are_there(tmp_path, rows):
    growing = table(tmp_path)
    for second in range(rows):
        growing.append(row(second), 1)
    texts = "".join(path.read_text() for path in tmp_path.iterdir())
    oldest = min(int(line.rpartition(",")[2]) for line in texts.splitlines() if "web" in line)
    for each in (growing, table(tmp_path)):
        assert (each.first_time(), each.last_time()) == (START + oldest, START + rows - 1)
    assert table(tmp_path, largest=100).last_time() == START + rows - 1  # though it begins a new file


def test_a_run_that_goes_on_after_its_files_were_moved_aside_keeps_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr("deepscaler.control.tables.Table.__init__.__defaults__", (10_000, 4))
    cluster, settings = FakeCluster(("web",)), make_settings(("web",), run_dir=str(tmp_path), duration=1800.0)
    for _ in range(3):
        directory = run_live(cluster, wants(6.0), settings)
    run = read_run(directory)
    assert (directory / "decisions.1.csv").is_file()
    assert utc_seconds(run.info["start"]) == run.decisions["time"].min() == START


@pytest.mark.parametrize("block", [64, 1000, 2**18])
def test_a_header_that_is_longer_than_a_block_costs_no_row(tmp_path, monkeypatch, block):
    monkeypatch.setattr("deepscaler.control.tables._BLOCK_BYTES", block)
    columns = {"time": moment, **{f"a service with a long name {number} cpu": whole for number in range(60)}}
    lines = [f"{utc_text(START + second)},{','.join(['7'] * 60)}\n" for second in range(40)]
    Table(tmp_path / "t.csv", columns).append("".join(lines), 40)
    before = (tmp_path / "t.csv").read_text()
    again = Table(tmp_path / "t.csv", columns)  # the controller starts anew
    assert (tmp_path / "t.csv").read_text() == before and again.skipped == 0
    assert (again.first_time(), again.last_time()) == (START, START + 39)
    assert len(again.all()) == 40 and len(again.since(START + 30)) == 10
    again.append(lines[-1][:-9], 1)  # torn
    assert len(Table(tmp_path / "t.csv", columns).all()) == 40


def test_only_the_tail_is_read_to_find_the_newest_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("deepscaler.control.tables._BLOCK_BYTES", 512)
    long = table(tmp_path, largest=10**7)
    long.append("".join(row(second) for second in range(20_000)), 20_000)
    parsed: list[bytes] = []
    parse = long._parsed
    monkeypatch.setattr(long, "_parsed", lambda line, at: (parsed.append(line), parse(line, at))[1])
    assert [int(found[2]) for found in long.since(START + 19_990)] == list(range(19_990, 20_000))
    assert len(parsed) < 100
    assert long.first_time() == START


def test_a_file_of_an_earlier_version_that_is_too_large_is_moved_aside_at_the_start(tmp_path):
    text = "time,service,count\n" + "".join(row(second) for second in range(200))
    (tmp_path / "t.csv").write_text(text)
    fresh = table(tmp_path)
    assert (tmp_path / "t.1.csv").read_text() == text
    assert (tmp_path / "t.csv").read_text() == "time,service,count\n"
    assert len(fresh.since(START + 100)) == 100


def test_at_the_end_of_a_live_run_the_rows_on_disk_stay_as_they_are(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Recorder, "decisions", lambda _self: written.append("all decisions were read"))
    directory = run_live(FakeCluster(), wants(6.0), make_settings(run_dir=str(tmp_path), duration=60.0))
    assert written == []
    run = read_run(directory)
    assert len(run.decisions) == len(run.pods) == 12 and run.info["counters"]["lost_rows"] == 0


@pytest.mark.parametrize(("dry", "earlier"), [(True, 600.0), (False, 0.0)])
def test_a_shadow_keeps_the_metrics_from_before_the_run_that_it_decided_by(tmp_path, dry, earlier):
    policy = wants(6.0)
    policy.history_seconds = 600.0
    settings = make_settings(run_dir=str(tmp_path), duration=60.0, dry_run=dry)
    run = read_run(run_live(FakeCluster(), policy, settings))
    assert run.panel.times[0] == run.endpoints["time"].min() - earlier


def test_after_months_the_start_reads_the_tail_only_and_a_signal_ends_within_seconds(tmp_path, monkeypatch):
    directory, hours = tmp_path / "scripted-0", 60
    directory.mkdir()
    moments = [START - 3600.0 * hours + 15.0 * row for row in range(240 * hours)]
    lines = (f"{utc_text(moment)},web,4,4,8.0,,8,8,forecast,act,\n" for moment in moments)
    (directory / "decisions.csv").write_text(HEADER + "".join(lines))
    parsed: list[bytes] = []
    parse = Table._parsed
    monkeypatch.setattr(
        Table, "_parsed", lambda self, line, at: (parsed.append(line), parse(self, line, at))[1]
    )

    def wish(_now: float, _service: str) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return 3.0

    cluster, spans = FakeCluster(("web",)), []
    metrics, latencies = cluster.metrics, cluster.latencies
    cluster.metrics = lambda *span: (spans.append(span), metrics(*span))[1]
    cluster.latencies = lambda *span: (spans.append(span), latencies(*span))[1]
    before = (directory / "decisions.csv").stat().st_size
    began = time.monotonic()
    run_live(cluster, ScriptedPolicy(wish), make_settings(("web",), run_dir=str(tmp_path)))
    assert time.monotonic() - began < 10
    assert len(parsed) < 3 * 2**18 / 40  # a few blocks
    assert max(end - start for start, end, _ in spans) <= 3600
    assert cluster.replicas["web"] == 4  # the window of the earlier run holds
    assert 0 < (directory / "decisions.csv").stat().st_size - before < 100


# --------------------------------------------------------------------------------------------------- the lock
def test_a_run_directory_that_another_controller_writes_to_is_refused(tmp_path):
    settings = make_settings(("web",), run_dir=str(tmp_path), duration=15.0)
    refused: list[str] = []

    def second(_now: float, _service: str) -> float:
        with pytest.raises(ClusterError) as error:
            run_live(FakeCluster(("web",)), wants(9.0), settings)
        refused.append(str(error.value))
        return 5.0

    cluster = FakeCluster(("web",))
    run_live(cluster, ScriptedPolicy(second), settings)
    assert cluster.replicas["web"] == 5
    assert f"another controller (process {os.getpid()} on " in refused[0]
    assert "stop it, or choose another scale.run_dir" in refused[0]
    run_live(cluster, wants(6.0), settings)  # it is free again
    assert cluster.replicas["web"] == 6


def test_a_process_that_was_killed_leaves_no_lock(tmp_path):
    script = f"""
import os
from pathlib import Path
from deepscaler.control.lock import only_writer
with only_writer(Path({str(tmp_path)!r})):
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=60)
    with only_writer(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


@pytest.mark.parametrize("failing", ["ftruncate", "flock"])
def test_a_disk_without_room_or_locks_keeps_nobody_out_and_nothing_from_starting(
    failing, tmp_path, monkeypatch
):
    def fails(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{'os' if failing == 'ftruncate' else 'fcntl'}.{failing}", fails)
    with only_writer(tmp_path):
        pass


def test_sighup_doesnt_end_a_run(tmp_path, caplog):
    caplog.set_level("INFO")

    def wish(now: float, _service: str) -> float:
        if now == START:
            os.kill(os.getpid(), signal.SIGHUP)
        return 4.0

    policy = ScriptedPolicy(wish)
    run_live(FakeCluster(("web",)), policy, make_settings(("web",), run_dir=str(tmp_path), duration=45.0))
    assert len(policy.seen) == 3 and "SIGHUP: going on" in caplog.text
