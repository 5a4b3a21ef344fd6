"""The comparison with recordings of a real cluster: its reader, its fit, and the page it writes."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cells import archive, broken
from helpers.paths import ROOT, SCALEREVAL, SCALEREVAL_MISSING

from deepscaler.errors import DataError
from deepscaler.settings import Settings, load_settings
from testbed.applications.loading import APPS, load_application
from testbed.fidelity import report
from testbed.fidelity.__main__ import draw, main, tables
from testbed.fidelity.fitting import (
    SETTLED_SECONDS,
    Lab,
    Parameters,
    fit,
    misfit,
    read_demands,
    tune_hops,
    tune_proxies,
)
from testbed.fidelity.records import GATEWAY, QUANTILES, Cell, Record, call_counts, compared, read_cells
from testbed.fidelity.replay import GATEWAY_BOUNDS, bucket_quantile, own_policy, task_weights


@pytest.mark.field
def test_a_cell_is_read_with_its_pods_its_cpu_its_users_and_its_zone(tmp_path: Path) -> None:
    (cell,) = read_cells(archive(tmp_path / "result.zip"), ("front", "back"), "front")
    record = cell.record
    assert cell.policy == "KHPA-70" and own_policy(cell) == "hpa_r70"
    assert record.seconds[[0, -1]].tolist() == [30.0, 149.0]  # a record in local time, Locust's in UTC
    assert record.limits.tolist() == [0.2, 0.3]
    assert record.cores[0] == pytest.approx([0.120, 0.060])  # one pod, not half of it
    assert record.cores[-1] == pytest.approx([0.120, 0.060])
    assert cell.users.tolist() == [0, 50, 80, 70] and cell.user_seconds.tolist() == [0, 1, 2, 3]
    assert cell.asked == {"GET /": 10.0, "GET /product": 50.0, "POST /cart": 5.0}
    assert cell.phase == 1.0  # pods change 76 s after the load began
    found = compared(record)
    assert found["cores"] == pytest.approx(0.5 * (46 + 2 * 74) / 120)
    assert (found["throughput"], found["violating"], found["p50"]) == pytest.approx((50.0, 0.25, 80.0))
    assert found["cpu_per_request"] == pytest.approx(1000 * 0.18 / 50)
    assert call_counts(record) == {"front": 1.0, "back": 2.0}


@pytest.mark.field
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("text", "no readable zip archive"),
        ("gone", "no readable zip archive"),
        ("changed", r"no readable zip archive \(Bad CRC-32"),
        ("encrypted", r"no readable zip archive \(File .* is encrypted"),
        ("packed", r"no readable zip archive \(.*compression"),
        ("without", "_stats.csv missing"),
        ("services", "no record.csv with all of"),
    ],
)
def test_an_archive_that_cannot_be_used_says_why(tmp_path: Path, broken: str, says: str) -> None:
    path = tmp_path / "result.zip"
    if broken == "text":
        path.write_text("not a zip")
    elif broken != "gone":
        archive(path, without="_stats.csv" if broken == "without" else "")
    if broken in ("changed", "encrypted", "packed"):
        content = bytearray(path.read_bytes())
        entry = content.find(b"PK\x01\x02")  # of the central directory
        if broken == "changed":
            content[content.find(b"2025-04-02 15")] = ord("3")
        if broken == "encrypted":
            content[entry + 8] |= 1
        if broken == "packed":
            content[entry + 10] = 99
        path.write_bytes(content)
    services = ("cart",) if broken == "services" else ("front", "back")
    with pytest.raises(DataError, match=says):
        read_cells(path, services, "front")


RECORD, USERS = "record.csv", "_stats_history.csv"
TWO = ("front", "back")


def record_csv(change: dict[str, object], *, without: str = "", rows: int = 9) -> bytes:
    """A record.csv of the small archive with other cells, and without one column."""
    columns: dict[str, object] = {"timestamp": [f"2025-04-02 15:15:{second:02}" for second in range(rows)]}
    for service in TWO:
        columns |= {f"{service}&{kind}": 1.0 for kind in ("count", "qps", "cpu_usage_mean", "cpu_usage_max")}
    columns |= {f"{GATEWAY}&{q:g}": 80.0 for q in QUANTILES}
    return (
        pd.DataFrame(columns | change, index=range(rows))
        .drop(columns=without or [])
        .to_csv(index=False)
        .encode()
    )


@pytest.mark.field
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (RECORD, b"", "not a readable CSV"),
        (RECORD, b"timestamp,caf\xe9&count\n", "not a readable CSV"),
        (RECORD, b'timestamp\n"2025', "not a readable CSV"),
        (RECORD, b"timestamp,front&count,back&count\n", "no row below its header"),
        (RECORD, record_csv({}, without="front&cpu_usage_mean"), "no column 'front&cpu_usage_mean'"),
        (RECORD, record_csv({}, without="timestamp"), "no column 'timestamp'"),
        (RECORD, record_csv({}, without=f"{GATEWAY}&0.95"), f"no column '{GATEWAY}&0.95'"),
        (RECORD, record_csv({"back&qps": "many"}), "column 'back&qps': Unable to parse"),
        (RECORD, record_csv({"back&count": np.nan}), "column 'back&count': a number is missing"),
        (RECORD, record_csv({"timestamp": "noon"}), "column 'timestamp': "),
        (RECORD, record_csv({"timestamp": "2025-04-02 15:15:00"}), "each later than the one before"),
        (RECORD, record_csv({}, rows=1), "expected two times or more"),
        (USERS, b"", "not a readable CSV"),
        (USERS, b"Timestamp,User Count\n", "no row below its header"),
        (USERS, b"User Count\n3\n", "no column 'Timestamp'"),
        (USERS, b"Timestamp\n1743606920\n", "no column 'User Count'"),
        (USERS, b"Timestamp,User Count\n1743606920,\n", "column 'User Count': a number is missing"),
        ("_stats.csv", b"Type,Name\nGET,/\n", "no column 'Request Count'"),
        ("_stats.csv", b"Type,Name,Request Count\nGET,/,lots\n", "column 'Request Count': Unable to parse"),
        ("limit.json", b'{"front": ', "not valid JSON"),
        ("limit.json", b"\xff", "not valid JSON"),
        ("limit.json", b"[]", 'expected "front": ["<millicores>m"'),
        ("limit.json", b'{"front": ["200m"]}', 'expected "back": ["<millicores>m"'),
        ("limit.json", b'{"front": ["200m"], "back": 3}', 'expected "back": ["<millicores>m"'),
        ("limit.json", b'{"front": ["200m"], "back": ["0m"]}', 'expected "back": ["<millicores>m"'),
    ],
)
def test_a_broken_file_in_an_archive_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = broken(tmp_path / "result.zip", name, content)
    with pytest.raises(DataError) as caught:
        read_cells(path, TWO, "front")
    said = str(caught.value)
    assert said.startswith(f"{path}: shop/dist1/wiki/KHPA-70/{name}: ") and says in said
    assert said.endswith("leave this run out of the archive") and "\n" not in said


@pytest.mark.field
def test_a_record_that_is_written_here_is_whole(tmp_path: Path) -> None:
    (cell,) = read_cells(broken(tmp_path / "result.zip", RECORD, record_csv({})), TWO, "front")
    assert cell.record.pods.shape == (9, 2)


def test_quantiles_are_interpolated_within_the_gateways_buckets() -> None:
    counts = np.zeros(len(GATEWAY_BOUNDS))
    assert np.isnan(bucket_quantile(counts, 0.5))
    counts[GATEWAY_BOUNDS.index(0.1)], counts[GATEWAY_BOUNDS.index(0.25)] = 90, 10
    assert bucket_quantile(counts, 0.45) == pytest.approx(0.075)
    assert bucket_quantile(counts, 0.95) == pytest.approx(0.175)
    assert bucket_quantile(counts, 0.9) == pytest.approx(0.1)


# ----------------------------------------------------------------------------------------- planted parameters
@pytest.fixture(scope="module")
def real() -> Settings:
    return load_settings(ROOT / "config" / "boutique_real.yaml")


PLANTED = {"hop_ms": 3.0, "wakeup": 1.1, "slowdown": 2.0, "proxy_call_ms": 0.75}
SECONDS = 900


@pytest.fixture(scope="module")
def planted(real: Settings) -> tuple[Lab, Parameters, list[Cell]]:
    """Two runs that the emulated cluster itself recorded, with known parameters."""
    lab = Lab(real, APPS / "boutique_real.yaml")
    services = tuple(real.app.services)
    demand = np.linspace(0.6, 2.4, len(services))
    truth = Parameters(services, demand, np.linspace(4.0, 9.0, len(services)), **PLANTED)
    application = load_application(lab.base)
    cells = []
    for policy, most in (("KHPA-20", 6), ("KHPA-60", 3)):
        seconds = np.arange(30.0, SECONDS)
        pods = np.where(seconds[:, None] < 46, 1.0, most + np.arange(len(services)) % 3)
        blank = np.full((len(seconds), len(services)), np.nan)
        record = Record(
            seconds, services, np.ones(len(services)), pods, blank, blank, np.full((len(seconds), 4), np.nan)
        )
        users = np.repeat([200, 340, 260], 300)
        asked = dict.fromkeys(application.endpoint_names, 100.0)
        cell = Cell(policy, policy, record, np.arange(float(SECONDS)), users, asked, phase=1.0)
        cells.append(replace(cell, record=lab.emulate([cell], truth, own=True, seed=77)[0]))
    return lab, truth, cells


def test_a_planted_demand_and_idle_use_are_read_from_the_records(
    planted: tuple[Lab, Parameters, list[Cell]],
) -> None:
    lab, truth, cells = planted
    found = read_demands(cells, load_application(lab.base))
    often = np.array([cell.record.requests.mean(axis=0) for cell in cells]).mean(axis=0) > 20
    ratio = found.demand_ms[often] / truth.demand_ms[often]
    assert often.sum() >= 6
    # Wake-ups, up to a tenth, are still in it; and two runs with steady pods tell work and idle use hardly
    # apart, so some of this can be taken for that. Together they are the CPU that was recorded.
    assert np.all((ratio > 0.97) & (ratio < 1.3)) and np.median(ratio) < 1.15
    for cell in cells:
        calm = cell.record.seconds > SETTLED_SECONDS
        pods, requests, cores = (
            table[calm].mean(axis=0) for table in (cell.record.pods, cell.record.requests, cell.record.cores)
        )
        told = (pods * found.idle_millicores + requests * found.demand_ms) / 1000
        np.testing.assert_allclose(told, cores, rtol=0.05)


def test_planted_hops_and_proxies_are_found_by_latency_and_by_the_replicas_of_hpas(
    planted: tuple[Lab, Parameters, list[Cell]],
) -> None:
    lab, truth, cells = planted
    assert tune_hops(cells, lab, replace(truth, hop_ms=1.0)).hop_ms == pytest.approx(3.0, rel=0.1)
    assert tune_proxies(cells, lab, replace(truth, proxy_call_ms=1.25)).proxy_call_ms == 0.75


def test_the_truth_fits_better_than_what_is_off(planted: tuple[Lab, Parameters, list[Cell]]) -> None:
    lab, truth, cells = planted
    right = misfit(cells, lab.emulate(cells, truth))
    for off in (
        replace(truth, demand_ms=3 * truth.demand_ms),
        replace(truth, hop_ms=6.0),
        replace(truth, slowdown=1.0),
    ):
        assert misfit(cells, lab.emulate(cells, off)) > 1.1 * right


def test_users_choose_the_tasks_that_locust_counted(planted: tuple[Lab, Parameters, list[Cell]]) -> None:
    lab, _, cells = planted
    application = load_application(lab.base)
    asked = {"GET /": 10, "POST /setCurrency": 20, "GET /product": 130, "GET /cart": 30, "POST /cart": 30,
             "POST /cart/checkout": 10}  # fmt: skip
    cell = replace(cells[0], asked={name: float(count) for name, count in asked.items()})
    weights = dict(
        zip((task.name for task in application.tasks), task_weights(cell, application), strict=True)
    )
    assert {name: round(19 * weight, 3) for name, weight in weights.items()} == {
        "index": 1, "setCurrency": 2, "browse": 10, "viewCart": 3, "addToCart": 2, "checkout": 1,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- the page
def test_the_command_says_in_one_line_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(ROOT / "config" / "boutique_real.yaml")
    assert main(["--data", str(tmp_path / "result.zip"), "--config", config]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "result.zip" in error and error.count("\n") == 1


@pytest.mark.parametrize("workers", ["0", "-3"])
def test_fewer_than_one_process_is_refused(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", "result.zip", "--workers", workers])
    assert f"argument --workers: expected 1 or more, found {workers}" in capsys.readouterr().err


def test_a_run_whose_requests_the_application_does_not_know_is_named(
    planted: tuple[Lab, Parameters, list[Cell]],
) -> None:
    lab, _, cells = planted
    application = load_application(lab.base)
    for asked in ({}, {"GET /elsewhere": 9.0}, {"GET /": 0.0}):
        with pytest.raises(DataError, match=r"KHPA-20/_stats\.csv: no requests to GET /, "):
            task_weights(replace(cells[0], asked=asked), application)


def test_tables_picture_and_page_are_made_of_what_was_judged(
    tmp_path: Path, real: Settings, planted: tuple[Lab, Parameters, list[Cell]]
) -> None:
    _, truth, (first, second) = planted
    judged = [
        report.Judged(first, first.record, first.record, second.record, truth),
        report.Judged(second, second.record, None, second.record, truth),
    ]
    blocks = tables(judged, truth, real)
    lines = blocks["comparison"].splitlines()
    assert len(lines) == 2 + 4 + 3
    assert lines[2].split("|")[3:] == lines[3].split("|")[3:] and "(" in lines[5]
    assert "| time of a call on its way, ms | 3.00 | 3.00-3.00 |" in blocks["parameters"]
    assert "| checkoutservice |" in blocks["calls"]
    draw(judged, tmp_path / "pods.png")
    assert (tmp_path / "pods.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_beyond_its_reach_stands_in_brackets() -> None:
    assert report.within("cores", 10.0, 10.5) and not report.within("cores", 10.0, 9.4)
    assert report.within("violating", 0.06, 0.09) and report.within("violating", 0.06, 0.04)
    assert not report.within("violating", 0.06, 0.0399) and report.within("p99", 1.0, 9.0)


def test_the_fitted_numbers_are_written_into_the_application_and_nothing_else(
    tmp_path: Path, planted: tuple[Lab, Parameters, list[Cell]]
) -> None:
    lab, truth, _ = planted
    shutil.copy(APPS / "boutique.yaml", tmp_path)
    path = tmp_path / "boutique_real.yaml"
    shutil.copy(lab.base, path)
    report.write_application(path, truth.fields(load_application(lab.base)))
    written, before = load_application(path), load_application(lab.base)
    assert written.hop_seconds == pytest.approx(0.003) and written.tasks == before.tasks
    assert [service.demand_seconds for service in written.services] == pytest.approx(
        np.round(truth.demand_ms, 2) / 1000
    )
    text = path.read_text()
    report.write_application(path, truth.fields(load_application(lab.base)))
    assert path.read_text() == text


# ---------------------------------------------------------------------------------------------- the real data
real_data = pytest.mark.skipif(not SCALEREVAL.exists(), reason=SCALEREVAL_MISSING)


@pytest.fixture(scope="module")
def recorded(real: Settings) -> list[Cell]:
    return read_cells(SCALEREVAL, tuple(real.app.services), "frontend")


@real_data
def test_summed_over_services_the_recorded_cpu_is_that_of_the_namespace(recorded: list[Cell]) -> None:
    with zipfile.ZipFile(SCALEREVAL) as data:
        for cell in recorded:
            frame = pd.read_csv(io.BytesIO(data.read(f"{cell.name}/record.csv")))
            others = frame["redis-cart&cpu_usage_mean"] / 1000  # one pod, not scaled
            ratio = (cell.record.cores.sum(axis=1) + others) / frame["namespace_vCPU"]
            assert ratio.median() == pytest.approx(1.0, abs=0.001)


@real_data
def test_the_shipped_application_keeps_within_reach_of_the_recorded_runs(
    real: Settings, recorded: list[Cell]
) -> None:
    """Replayed replicas, another seed than the page's: cores, requests and medians of every run."""
    lab = Lab(real, APPS / "boutique_real.yaml")
    records = lab.run(recorded, {"extends": str(lab.base)}, seed=2001)
    for cell, record in zip(recorded, records, strict=True):
        truth, seen = compared(cell.record), compared(record)
        for name in ("cores", "p50"):
            assert report.within(name, truth[name], seen[name]), (cell.policy, name, truth[name], seen[name])
        overloaded = truth["violating"] > 0.9  # then the demands alone decide, and a percent of them shows
        assert seen["throughput"] == pytest.approx(truth["throughput"], rel=0.05 if overloaded else 0.02)


@real_data
def test_the_page_and_the_application_hold_what_the_records_say(real: Settings, recorded: list[Cell]) -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    for cell in recorded:
        values = compared(cell.record)
        row = next(line for line in page.splitlines() if line.startswith(f"| {cell.policy} | real |"))
        texts = [text.format(100 * values[name] if name == "violating" else values[name])
                 for name, (_, text) in report.MEASURES.items()]  # fmt: skip
        assert [part.strip() for part in row.split("|")[3:-1]] == texts
    application = load_application("boutique_real")
    read = read_demands(recorded, application)
    for service, demand, idle in zip(application.services, read.demand_ms, read.idle_millicores, strict=True):
        assert 1000 * service.idle_cores == pytest.approx(idle, abs=0.06)
        assert 1.0 <= demand / (1000 * service.demand_seconds) < service.wakeup + 0.1


def test_the_fit_goes_on_where_no_run_is_calm(planted: tuple[Lab, Parameters, list[Cell]]) -> None:
    lab, _, cells = planted
    slow = replace(cells[0].record, quantiles=np.full_like(cells[0].record.quantiles, 9.0))
    found = fit([replace(cells[0], policy="None", record=slow)], lab)
    given = load_application(lab.base).services
    demands = dict(zip(found.services, found.demand_ms, strict=True))
    assert all(demands[service.name] <= 1000 * service.demand_seconds + 1e-9 for service in given)
