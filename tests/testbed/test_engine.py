"""The engine against closed forms, against Ciw, and against itself."""

from __future__ import annotations

from math import factorial
from pathlib import Path
from typing import Any

import ciw
import numpy as np
import pytest

from testbed.applications.loading import load_application
from testbed.engine import kernel as core
from testbed.engine.program import Program, compile_program
from testbed.engine.simulator import LoadPlan, Simulator

MEMORY = "memory_request_mib: 64, memory_limit_mib: 128, memory_base_mib: 32"
TWO = """
name: two
think_seconds: 1
services:
  a: {{request_millicores: 100, limit_millicores: {limit_a}, demand_ms: {a}, boot_seconds: 5, MEMORY,
       cores: {cores}, {extra}}}
  b: {{request_millicores: 100, limit_millicores: 1000, demand_ms: {b}, boot_seconds: 5, MEMORY, cores: 1}}
endpoints:
  page: {{service: a, calls: [{calls}]}}
tasks:
  only: {{weight: 1, requests: [page]}}
"""


def program_of(tmp_path: Path, text: str) -> Program:
    path = tmp_path / "app.yaml"
    path.write_text(text.replace("MEMORY", MEMORY))
    return compile_program(load_application(path))


def two(
    tmp_path: Path,
    *,
    a: float = 10,
    b: float = 10,
    calls: str = "",
    limit_a: int = 1000,
    cores: int = 1,
    extra: str = "",
) -> Program:
    extra = extra or "idle_millicores: 0"
    return program_of(tmp_path, TWO.format(a=a, b=b, calls=calls, limit_a=limit_a, cores=cores, extra=extra))


def means(simulator: Simulator) -> float:
    snapshot = simulator.snapshot()
    return float(snapshot.endpoint_seconds[0] / snapshot.endpoints[0, 1])


def batch_means(
    program: Program, rate: float, seconds: float, seeds: range, **options: Any
) -> tuple[float, float]:
    """Mean response and its standard error over independent seeds."""
    found = []
    for seed in seeds:
        simulator = Simulator(
            program, LoadPlan.open([0.0], [rate], program.task_weights), seed=seed, **options
        )
        simulator.advance(seconds)
        found.append(means(simulator))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_core_shared_by_poisson_arrivals_answers_as_m_m_1_ps(tmp_path: Path, load: float) -> None:
    program = two(tmp_path)
    mean, error = batch_means(program, load * 100, 4000.0, range(8), replicas=[1, 1])
    assert mean == pytest.approx(0.01 / (1 - load), abs=max(0.01 * 0.01 / (1 - load), 3 * error))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_pod_of_k_cores_answers_as_m_m_k(tmp_path: Path, load: float) -> None:
    k, service = 4, 0.01
    program = two(tmp_path, limit_a=4000, cores=k)
    offered = load * k
    tail = offered**k / factorial(k) / (1 - load)
    wait = tail / (sum(offered**n / factorial(n) for n in range(k)) + tail)  # Erlang C
    expected = service + wait * service / (k * (1 - load))
    mean, error = batch_means(program, offered / service, 1500.0, range(8), replicas=[1, 1])
    assert mean == pytest.approx(expected, abs=max(0.01 * expected, 3 * error))


def test_parallel_exponential_calls_take_the_harmonic_sum(tmp_path: Path) -> None:
    names = ["b", "c", "d", "e"]
    one = "  {}: {{request_millicores: 100, limit_millicores: 4000, demand_ms: {}, boot_seconds: 5, "
    one += "MEMORY, cores: 4}}\n"
    services = "".join(one.format(name, 0.001 if name == "a" else 10) for name in ["a", *names])
    page = f"  page: {{service: a, calls: [{{parallel: [{', '.join(names)}]}}]}}\n"
    tasks = "tasks:\n  only: {weight: 1, requests: [page]}\n"
    program = program_of(
        tmp_path, f"name: fan\nthink_seconds: 1\nservices:\n{services}endpoints:\n{page}{tasks}"
    )
    simulator = Simulator(
        program, LoadPlan.closed([0.0], [1], program.task_weights), seed=4, replicas=[1] * 5
    )
    simulator.advance(60_000.0)
    expected = 0.01 * sum(1 / k for k in range(1, 5)) + 1e-6
    count = simulator.snapshot().endpoints[0, 1]
    deviation = 0.01 * np.sqrt(sum(1 / k**2 for k in range(1, 5)) / count)
    assert means(simulator) == pytest.approx(expected, abs=max(0.01 * expected, 3 * deviation))


def test_utilisation_is_rate_times_demand_within_one_percent() -> None:
    application = load_application("boutique")
    program = compile_program(application)
    simulator = Simulator(
        program, LoadPlan.closed([0.0], [50], program.task_weights), seed=5, replicas=[5] * 10
    )
    simulator.advance(5000.0)
    idle = 5 * program.idle_cores * 5000.0
    busy = simulator.cpu_total() - idle
    expected = simulator.snapshot().service_finished * program.demand_seconds
    assert busy == pytest.approx(expected, rel=0.01, abs=3 * np.max(program.demand_seconds) * 100)
    assert busy.sum() == pytest.approx(expected.sum(), rel=0.01)


def test_a_lone_job_under_a_quota_finishes_when_the_periods_say(tmp_path: Path) -> None:
    """50 ms of work at a limit of 0.2 cores: 20 ms a period, so it spans three periods wherever it starts."""
    program = two(tmp_path, a=50, limit_a=200)
    simulator = Simulator(
        program,
        LoadPlan.closed([0.0], [0], program.task_weights),
        seed=1,
        replicas=[1, 1],
        demand="deterministic",
    )
    phase = float(simulator._state.pods[0]["period_end"])
    arrivals = np.zeros(2, core.ARRIVAL)
    arrivals["time"], arrivals["id"] = [phase + 0.01, phase + 1.095], [1, 2]
    done = simulator.advance(10.0, arrivals)
    # 0.01 s into a period: 20 ms there, 20 ms in the next, 10 ms in the one after.
    # 0.095 s into a period: 5 ms, 20 ms, 20 ms, then 5 ms.
    assert done["time"] - phase == pytest.approx([0.2 + 0.01, 1.0 + 0.3 + 0.005], abs=1e-9)


def test_the_engine_agrees_with_ciw_on_a_small_network(tmp_path: Path) -> None:
    program = two(tmp_path, a=12, b=6, calls="b")
    rate = 55.0
    mean, error = batch_means(program, rate, 3000.0, range(8), replicas=[1, 1])
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate), None],
        service_distributions=[ciw.dists.Exponential(1 / 0.006), ciw.dists.Exponential(1 / 0.006)],
        number_of_servers=[float("inf")] * 2,
        ps_thresholds=[1, 1],
        routing=ciw.routing.ProcessBased(lambda individual, simulation: [2, 1]),
    )
    found = []
    for seed in range(6):
        ciw.seed(seed)
        simulation = ciw.Simulation(network, node_class=ciw.PSNode)
        simulation.simulate_until_max_time(150.0)
        total: dict[int, float] = {}
        visits: dict[int, int] = {}
        for record in simulation.get_all_records():
            total[record.id_number] = (
                total.get(record.id_number, 0.0) + record.exit_date - record.arrival_date
            )
            visits[record.id_number] = visits.get(record.id_number, 0) + 1
        found.append(np.mean([total[who] for who, count in visits.items() if count == 3]))
    expected, deviation = np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))
    assert mean == pytest.approx(expected, abs=3 * np.hypot(error, deviation) + 0.01 * expected)


def boutique(seed: int = 7, balancing: str = "least_request") -> Simulator:
    program = compile_program(load_application("boutique"))
    times = np.arange(0.0, 300.0, 5.0)
    users = (60 + 40 * np.sin(times / 30)).astype(int)
    plan = LoadPlan.closed(times, users, program.task_weights)
    return Simulator(program, plan, seed=seed, replicas=[2] * 10, balancing=balancing)


@pytest.mark.parametrize("balancing", core.BALANCING)
def test_chunking_changes_no_finish_time(balancing: str) -> None:
    whole, pieces = boutique(balancing=balancing), boutique(balancing=balancing)
    for moment in (100.0, 200.0, 300.0):
        whole.advance(moment)
        while pieces.now < moment:
            pieces.advance(min(pieces.now + 0.0137, moment))
        for service in range(10):
            for simulator in (whole, pieces):
                simulator.scale(service, 1 + (service + int(moment)) % 4)
    first, second = whole.snapshot(), pieces.snapshot()
    for name in ("service_seconds", "service_finished", "endpoints", "endpoint_seconds", "edges", "pod_cpu"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


TANGLE = """
name: tangle
think_seconds: [0.2, 1.0]
services:
  a: {request_millicores: 100, limit_millicores: 500, demand_ms: 4, boot_seconds: 8, MEMORY}
  b: {request_millicores: 100, limit_millicores: 200, demand_ms: 8, boot_seconds: 8, MEMORY,
      max_in_flight: 3, calls: [d]}
  c: {request_millicores: 100, limit_millicores: 200, demand_ms: 8, boot_seconds: 8, MEMORY,
      warmup: {seconds: 30, slowdown: 2}}
  d: {request_millicores: 100, limit_millicores: 200, demand_ms: 3, boot_seconds: 8, MEMORY}
endpoints:
  page:
    service: a
    calls:
      - parallel:
          - {service: b, timeout_seconds: 0.05, on_failure: ignore}
          - {service: c, times: 1.5, timeout_seconds: 0.08, retries: 2}
          - {service: d, probability: 0.4}
      - {service: c, timeout_seconds: 0.03, on_failure: ignore,
         calls: [{parallel: [d, {service: d, retries: 1, timeout_seconds: 0.01}]}]}
  other: {service: b, calls: []}
tasks:
  one: {weight: 2, requests: [page, other]}
  two: {weight: 1, requests: [other]}
"""


@pytest.mark.parametrize("seed", range(4))
def test_every_request_is_done_or_failed_under_timeouts_retries_and_scaling(
    tmp_path: Path, seed: int
) -> None:
    program = program_of(tmp_path, TANGLE)
    users = [80, 150, 20, 200, 0]
    plan = LoadPlan.closed([0.0, 60, 120, 180, 240], users, program.task_weights)
    simulator = Simulator(program, plan, seed=seed, replicas=[2, 2, 2, 2])
    random = np.random.default_rng(seed)
    for moment in np.arange(5.0, 245.0, 5.0):
        simulator.advance(moment)
        simulator.scale(int(random.integers(4)), int(random.integers(0, 6)))
        snapshot = simulator.snapshot()
        assert snapshot.endpoints[:, 0].sum() == snapshot.endpoints[:, 1:3].sum() + simulator.in_flight
    for service in range(4):
        simulator.scale(service, 8)
    simulator.advance(600.0)
    snapshot = simulator.snapshot()
    assert simulator.in_flight == 0
    assert snapshot.endpoints[:, 0].sum() == snapshot.endpoints[:, 1:3].sum() > 10_000
    assert snapshot.endpoints[:, 2].sum() > 0
    assert (snapshot.edges[:, 0] == snapshot.edges[:, 1] + snapshot.edges[:, 2]).all()
    assert (simulator._state.tasks["alive"] == 0).all()
    assert (simulator._state.pods["in_flight"] == 0).all() and (simulator._state.pods["jobs"] == 0).all()
    assert (simulator._state.services["in_flight"] == 0).all()
    assert len(snapshot.pod_uid) == 32


def test_tables_grow_in_overload_without_changing_the_result(tmp_path: Path) -> None:
    program = two(tmp_path, a=10, b=5, calls="{service: b, timeout_seconds: 30}")
    simulators = [
        Simulator(program, LoadPlan.open([0.0], [300.0], program.task_weights), seed=2, replicas=[1, 1])
        for _ in range(2)
    ]
    small = simulators[0].memory_bytes
    for _ in range(4):
        simulators[1]._grow()
    for simulator in simulators:
        simulator.advance(60.0)
    assert simulators[0].memory_bytes > 2 * small
    np.testing.assert_array_equal(
        simulators[0].snapshot().endpoint_seconds, simulators[1].snapshot().endpoint_seconds
    )
    assert simulators[0].in_flight > 5000


def test_two_policies_on_one_seed_see_the_same_arrivals(tmp_path: Path) -> None:
    program = two(tmp_path, calls="b")
    offered = []
    for replicas in ([1, 1], [3, 2]):
        simulator = Simulator(
            program, LoadPlan.open([0.0], [50.0], program.task_weights), seed=9, replicas=replicas
        )
        simulator.advance(500.0)
        offered.append(simulator.snapshot().endpoints[0, 0])
    assert offered[0] == offered[1]


def test_a_cap_on_requests_in_flight_makes_a_fifo_queue(tmp_path: Path) -> None:
    """One request at a time on one core is M/M/1 FIFO, whose mean equals that of processor sharing."""
    program = two(tmp_path, extra="max_in_flight: 1")
    mean, error = batch_means(program, 60.0, 4000.0, range(8), replicas=[1, 1])
    assert mean == pytest.approx(0.025, abs=max(0.00025, 3 * error))
    simulator = Simulator(program, LoadPlan.closed([0.0], [0], program.task_weights), seed=1, replicas=[1, 1])
    arrivals = np.zeros(20, core.ARRIVAL)
    arrivals["time"], arrivals["id"] = 1.0 + np.arange(20) * 1e-4, np.arange(20)
    done = simulator.advance(10.0, arrivals)
    assert list(done["id"]) == list(range(20))


def test_pods_boot_serve_and_drain(tmp_path: Path) -> None:
    program = two(tmp_path)
    simulator = Simulator(
        program, LoadPlan.open([0.0], [20.0], program.task_weights), seed=3, replicas=[1, 1]
    )
    simulator.advance(10.0)
    simulator.scale(0, 3)
    simulator.advance(13.0)
    assert sorted(simulator.snapshot().pod_state[simulator.snapshot().pod_service == 0]) == [
        core.STARTING,
        core.STARTING,
        core.READY,
    ]
    simulator.advance(17.0)
    assert (simulator.snapshot().pod_state == core.READY).all()
    simulator.scale(0, 1)
    simulator.advance(20.0)
    assert (simulator.snapshot().pod_service == 0).sum() == 1
    assert simulator.snapshot().pod_uid[simulator.snapshot().pod_service == 0] == 0  # the oldest stays


@pytest.mark.parametrize("users", [0, 20])
def test_pods_that_are_removed_while_they_start_leave_room_for_others(users: int) -> None:
    """Their timers stay until they are due, long after the pods' places are taken again."""
    program = compile_program(load_application("boutique"))
    plan = LoadPlan.closed([0.0], [users], program.task_weights)
    simulators = [Simulator(program, plan, seed=1, replicas=[2] * program.num_services) for _ in range(2)]
    for _ in range(4):
        simulators[1]._grow_timers()
    service = program.services.index("adservice")  # it takes 37 s to start
    for simulator in simulators:
        for step in range(60):
            simulator.scale(service, 2 if step % 2 else 30)
            simulator.advance(step + 1.0)
        simulator.scale(service, 30)
        simulator.advance(121.0)
        states = simulator.snapshot().pod_state[simulator.snapshot().pod_service == service]
        assert (states == core.READY).sum() == 30 == len(states)
    for name in ("pod_cpu", "endpoint_seconds", "edges"):
        np.testing.assert_array_equal(*(getattr(simulator.snapshot(), name) for simulator in simulators))


def test_a_service_without_a_ready_pod_fails_its_requests(tmp_path: Path) -> None:
    program = two(tmp_path, calls="b")
    simulator = Simulator(program, LoadPlan.closed([0.0], [5], program.task_weights), seed=3, replicas=[1, 0])
    simulator.advance(100.0)
    snapshot = simulator.snapshot()
    assert snapshot.endpoints[0, 1] == 0 and snapshot.endpoints[0, 2] > 300


def test_memory_stays_flat_over_a_virtual_day() -> None:
    simulator = boutique()
    simulator.advance(3600.0)
    before = simulator.memory_bytes
    simulator.advance(86_400.0)
    assert simulator.memory_bytes == before


def test_a_change_of_mix_changes_the_calls() -> None:
    program = compile_program(load_application("boutique"))
    weights = np.stack([np.eye(len(program.tasks))[0], np.eye(len(program.tasks))[5]])
    plan = LoadPlan(np.array([0.0, 500.0]), np.array([20, 20]), np.zeros(2), weights, np.array([0, 1]))
    simulator = Simulator(program, plan, seed=1, replicas=[4] * 10)
    simulator.advance(500.0)
    before = simulator.snapshot().service_finished.copy()
    simulator.advance(1000.0)
    checkout = program.services.index("checkoutservice")
    assert before[checkout] == 0 and simulator.snapshot().service_finished[checkout] > 1000


def test_a_mix_changes_at_its_moment_whatever_the_chunks_and_leaves_the_past_alone() -> None:
    program = compile_program(load_application("boutique"))
    plain = LoadPlan.closed([0.0, 40.0], [20, 30], program.task_weights)
    only = [float(name == "checkout") for name in program.tasks]
    mixed = plain.remixed(61.7, only)

    def offered(plan: LoadPlan, *stops: float) -> list[list[int]]:
        simulator = Simulator(program, plan, seed=3, replicas=[4] * program.num_services)
        found = []
        for stop in stops:
            simulator.advance(stop)
            found.append(simulator.snapshot().endpoints[:, 0].tolist())
        return found

    assert offered(plain, 61.7) == offered(mixed, 61.7)
    assert offered(mixed, 200.0)[-1] == offered(mixed, 13.3, 61.7, 61.8, 99.9, 200.0)[-1]
    early, late = np.array(offered(mixed, 80.0, 200.0))
    made = dict(zip(program.endpoints, late - early, strict=True))
    assert made["GET /"] == 0 and made["POST /setCurrency"] == 0
    assert made["POST /cart/checkout"] > 200 and abs(made["GET /product"] - made["POST /cart/checkout"]) <= 30


def test_a_second_mix_at_a_line_of_the_load_adds_no_line() -> None:
    plan = LoadPlan.closed([0.0, 10.0], [1, 2], [1.0, 1.0]).remixed(5.0, [0.0, 1.0]).remixed(10.0, [1.0, 0.0])
    assert (
        plan.times.tolist() == [0, 5, 10]
        and plan.users.tolist() == [1, 1, 2]
        and plan.mix.tolist() == [0, 1, 2]
    )


def test_a_call_on_its_way_takes_its_time_but_no_core(tmp_path: Path) -> None:
    """Two calls of 50 ms on average besides 30 ms of work: the mean response grows by the hops alone."""
    text = TWO.format(
        a=10, b=10, calls="{service: b, times: 2}", limit_a=1000, cores=1, extra="idle_millicores: 0"
    )
    found = {}
    for hop in (0, 50):
        program = program_of(tmp_path, text.replace("think_seconds: 1", f"think_seconds: 1\nhop_ms: {hop}"))
        simulator = Simulator(
            program, LoadPlan.open([0.0], [1.0], [1.0]), seed=5, replicas=[4, 4], demand="deterministic"
        )
        simulator.advance(4000.0)
        snapshot = simulator.snapshot()
        found[hop] = means(simulator), float(snapshot.pod_cpu.sum()) / int(snapshot.endpoints[0, 1])
        assert len(snapshot.pod_uid) == 8 and simulator.cpu_total().shape == (2,)
    assert found[50][0] - found[0][0] == pytest.approx(3 * 0.05, rel=0.03)
    assert found[50][1] == pytest.approx(found[0][1], rel=0.001)


def test_a_time_out_ends_a_call_whose_own_call_is_on_its_way_and_chunks_change_nothing(
    tmp_path: Path,
) -> None:
    text = TWO.format(
        a=1, b=1, limit_a=1000, cores=1, extra="idle_millicores: 0",
        calls="{service: b, timeout_seconds: 0.4, on_failure: ignore, calls: [{service: b, times: 4}]}",
    ).replace("think_seconds: 1", "think_seconds: 1\nhop_ms: 100")  # fmt: skip
    program = program_of(tmp_path, text)

    def outcome(*stops: float) -> tuple[list[int], list[int], float]:
        simulator = Simulator(program, LoadPlan.open([0.0], [20.0], [1.0]), seed=7, replicas=[2, 2])
        for stop in stops:
            simulator.advance(stop)
        snapshot = simulator.snapshot()
        return (
            snapshot.edges.sum(axis=0).tolist(),
            snapshot.endpoints[0].tolist(),
            snapshot.endpoint_seconds[0],
        )

    whole = outcome(300.0)
    assert whole == outcome(0.1, 3.7, 111.1, 300.0)
    (started, done, failed), (offered, finished, lost, _), seconds = whole
    assert failed > 1000 and lost == 0 and offered - finished < 30
    assert started - done - failed < 90  # what is under way
    assert 0.45 < seconds / finished < 0.52  # the hop to the front, then 0.4 s at most, most of the time


def test_work_that_finds_its_pod_idle_takes_longer(tmp_path: Path) -> None:
    program = two(tmp_path, a=10, extra="idle_millicores: 0, wakeup: 1.5")

    def cpu(plan: LoadPlan) -> float:
        simulator = Simulator(program, plan, seed=3, replicas=[1, 1], demand="deterministic")
        simulator.advance(1000.0)
        return float(simulator.cpu_total()[0] / simulator.snapshot().endpoints[0, 1])

    assert cpu(LoadPlan.open([0.0], [0.5], [1.0])) == pytest.approx(0.015, rel=0.01)  # nearly always idle
    assert cpu(LoadPlan.closed([0.0], [300], [1.0])) == pytest.approx(0.010, rel=0.01)  # never
