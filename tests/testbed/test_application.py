"""Emulated applications: what a file may say, graphs and visits of the shipped ones, and their programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import recordings
from helpers.paths import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import SettingsError
from deepscaler.settings import load_settings
from testbed.applications import truth
from testbed.applications.application import Application, Call, Parallel
from testbed.applications.loading import load_application
from testbed.applications.truth import endpoint_shares, expected_visits
from testbed.engine import kernel as ops
from testbed.engine.program import Program, compile_program, tasks_at_once

SHIPPED = ("boutique", "bookinfo", "train_ticket")
BOUTIQUE_EDGES = {
    "frontend": "productcatalogservice currencyservice cartservice recommendationservice shippingservice"
    " checkoutservice adservice",
    "checkoutservice": "productcatalogservice shippingservice paymentservice emailservice currencyservice"
    " cartservice",
    "recommendationservice": "productcatalogservice",
}
NOT_LOADED = {
    ("cartservice", "redis-cart"),
    ("loadgenerator", "frontend"),
    ("ratings", "mongodb"),
    ("productpage", "ratings"),
}


def edges(program: Program) -> set[tuple[str, str]]:
    return {
        (program.services[caller], program.services[callee])
        for caller, callee in program.edges
        if caller >= 0
    }


def walk(program: Program, endpoint: int, random: np.random.Generator) -> tuple[np.ndarray, float, int]:
    """Run one request without time: visits of each service, mean CPU-seconds, deepest stack of one task."""
    visits, cpu, deepest = np.zeros(program.num_services), 0.0, 0
    branches: list[int] = [int(program.endpoint_start[endpoint])]
    first = True
    while branches:
        pc, stack = branches.pop(), []
        while True:
            op = program.ops[pc]
            if op == ops.ENTER:
                visits[program.arg0[pc]] += 1
                caller, callee = program.edges[program.arg1[pc]]
                assert callee == program.arg0[pc]
                assert (caller == -1) == (first and not stack and pc == program.endpoint_start[endpoint])
                stack.append(pc)
                deepest = max(deepest, len(stack))
                pc += 1
            elif op == ops.CPU:
                assert stack, "CPU is spent within a visit"
                cpu += program.value[pc]
                pc += 1
            elif op == ops.EXIT:
                pc += 1
                assert program.exit_pc[stack.pop()] == pc
            elif op == ops.BRANCH:
                pc = pc + 1 if random.random() < program.value[pc] else int(program.arg0[pc])
            elif op == ops.FORK:
                branches += program.branches[program.arg1[pc] : program.arg1[pc] + program.arg0[pc]].tolist()
                pc = int(program.exit_pc[pc])
            else:
                assert op == (ops.END if first else ops.JOIN)
                assert not stack
                break
        first = False
    return visits, cpu, deepest


def small(**changes: object) -> dict[str, object]:
    pod = {
        "request_millicores": 100, "limit_millicores": 200, "memory_request_mib": 64, "memory_limit_mib": 128,
        "demand_ms": 4, "boot_seconds": 5, "memory_base_mib": 20,
    }  # fmt: skip
    return {
        "name": "small",
        "services": {name: dict(pod) for name in ("a", "b", "c")},
        "endpoints": {"GET /": {"service": "a", "calls": ["b", "c"]}},
        "tasks": {"look": {"weight": 1, "requests": ["GET /"]}},
        **changes,
    }


def written(tmp_path: Path, document: dict[str, object]) -> str:
    path = tmp_path / "app.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def endpoint(*calls: object) -> dict[str, object]:
    return {"GET /": {"service": "a", "calls": list(calls)}}


def loaded(tmp_path: Path, *calls: object) -> Application:
    return load_application(written(tmp_path, small(endpoints=endpoint(*calls))))


# ------------------------------------------------------------------------------------------------ the shipped
def test_boutique_has_the_call_graph_of_its_source() -> None:
    assert edges(compile_program(load_application("boutique"))) == {
        (caller, callee) for caller, callees in BOUTIQUE_EDGES.items() for callee in callees.split()
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_call_graphs_equal_the_recorded_facts(name: str) -> None:
    facts = {
        (row["caller"], row["callee"])
        for row in recordings.table(f"{name}_edges")
        if row.get("both_deployed", "yes") == "yes"
    }
    assert edges(compile_program(load_application(name))) == facts - NOT_LOADED


def test_train_ticket_has_the_deployed_services_and_a_mean_demand_of_5_ms() -> None:
    application = load_application("train_ticket")
    assert len(application.services) == 41
    assert truth.mean_demand(application).mean() == pytest.approx(0.005, rel=0.01)
    facts = recordings.table("train_ticket_services")
    assert list(application.service_names) == [row["service"] for row in facts]


def test_a_boutique_frontend_request_makes_the_published_number_of_calls() -> None:
    application = load_application("boutique")
    calls = dict(
        zip(
            application.service_names,
            endpoint_shares(application) @ expected_visits(application),
            strict=True,
        )
    )
    published = {
        "frontend": 1, "adservice": 0.57, "cartservice": 0.97, "checkoutservice": 0.03,
        "currencyservice": 3.05,
        "productcatalogservice": 5.46, "recommendationservice": 0.70, "shippingservice": 0.27,
    }  # fmt: skip
    for service, count in published.items():
        assert calls[service] == pytest.approx(count, rel=0.03, abs=0.005), service


def test_a_boutique_product_page_asks_the_catalogue_seven_times() -> None:
    application = load_application("boutique")
    row = expected_visits(application)[application.endpoint_names.index("GET /product")]
    visits = {name: count for name, count in zip(application.service_names, row, strict=True) if count}
    assert visits == {
        "frontend": 1, "adservice": 1, "cartservice": 1, "currencyservice": 2, "productcatalogservice": 7,
        "recommendationservice": 1,
    }  # fmt: skip


def test_only_the_ad_call_of_boutique_may_fail_and_it_has_100_ms() -> None:
    program = compile_program(load_application("boutique"))
    ads = (program.ops == ops.ENTER) & (program.arg0 == program.services.index("adservice"))
    assert program.timeouts.tolist() == [0.1]
    assert (program.timeout[ads] == 0).all() and (program.ignore[ads] == 1).all()
    assert (program.timeout[~ads] == -1).all() and (program.ignore[~ads] == 0).all()


def test_boutique_serves_ten_recommendations_and_mails_at_a_time() -> None:
    program = compile_program(load_application("boutique"))
    capped = {program.services[i]: int(cap) for i, cap in enumerate(program.max_in_flight) if cap}
    assert capped == {"emailservice": 10, "recommendationservice": 10}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_service_of_a_shipped_application_is_visited(name: str) -> None:
    application = load_application(name)
    assert (endpoint_shares(application) @ expected_visits(application) > 0).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_configuration_of_a_shipped_application_agrees_with_it(name: str) -> None:
    path = ROOT / "config" / f"{name}.yaml"
    configured, application = load_settings(path), load_application(name)
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=")
    assert tuple(configured.app.services) == application.service_names
    assert {entry.name: entry.service for entry in configured.app.entries} == {
        end.name: application.service_names[end.service] for end in application.endpoints
    }
    assert configured.process.think_time == application.think_low == application.think_high
    assert configured.testbed.application == configured.app.name == application.name


@pytest.mark.parametrize("name", [*SHIPPED, "synthetic:100"])
def test_running_a_program_visits_what_is_expected_on_average(name: str) -> None:
    application = load_application(name)
    program, expected = compile_program(application), expected_visits(application)
    random, demand = np.random.default_rng(1), truth.mean_demand(application)
    for row, want in enumerate(expected):
        runs = [walk(program, row, random) for _ in range(400)]
        visits = np.array([visits for visits, _, _ in runs])
        spread = visits.sum(1).std() / np.sqrt(len(runs))
        assert abs(visits.sum(1).mean() - want.sum()) <= 4.5 * spread + 1e-9
        assert all(cpu == pytest.approx(visit @ demand) for visit, cpu, _ in runs)
        assert max(depth for _, _, depth in runs) <= program.max_depth


# --------------------------------------------------------------------------------------------------- programs
def test_a_chain_compiles_to_the_program_on_paper(tmp_path: Path) -> None:
    program = compile_program(loaded(tmp_path, {"service": "b", "calls": ["c"], "retries": 2}))
    kinds = [
        ops.ENTER,
        ops.CPU,
        ops.ENTER,
        ops.CPU,
        ops.ENTER,
        ops.CPU,
        ops.EXIT,
        ops.CPU,
        ops.EXIT,
        ops.CPU,
        ops.EXIT,
        ops.END,
    ]
    assert program.ops.tolist() == kinds
    assert program.exit_pc[[0, 2, 4]].tolist() == [11, 9, 7]
    assert program.value[[1, 3, 5, 7, 9]].tolist() == [0.002, 0.002, 0.004, 0.002, 0.002]
    assert program.retries[[0, 2, 4]].tolist() == [0, 2, 0]
    assert program.edges.tolist() == [[-1, 0], [0, 1], [1, 2]]
    assert (program.max_depth, program.max_tasks) == (3, 1)


def test_a_mean_count_is_its_whole_part_and_a_chance_of_one_more(tmp_path: Path) -> None:
    program = compile_program(loaded(tmp_path, {"service": "b", "times": 2.25, "probability": 0.5}))
    branches = program.ops == ops.BRANCH
    assert program.value[branches].tolist() == [0.5, 0.25]
    assert program.arg0[branches].tolist() == [13, 13]  # both go on after the last call
    assert ((program.ops == ops.ENTER) & (program.arg0 == 1)).sum() == 3


def test_a_chance_below_one_call_is_one_branch(tmp_path: Path) -> None:
    program = compile_program(loaded(tmp_path, {"service": "b", "times": 0.5, "probability": 0.5}))
    assert program.value[program.ops == ops.BRANCH].tolist() == [0.25]


def test_parallel_calls_fork_and_join(tmp_path: Path) -> None:
    application = loaded(
        tmp_path, {"parallel": ["b", {"service": "c", "calls": [{"parallel": ["a", "b", "b"]}]}]}, "b"
    )
    program = compile_program(application)
    forks = np.flatnonzero(program.ops == ops.FORK)
    assert program.arg0[forks].tolist() == [2, 3]
    assert (program.ops[program.branches] == ops.ENTER).all()
    assert (program.ops[program.exit_pc[forks] - 1] == ops.JOIN).all()
    assert program.max_tasks == 1 + 1 + (1 + 3)
    visits, _, _ = walk(program, 0, np.random.default_rng(0))
    assert visits.tolist() == expected_visits(application)[0].tolist() == [2, 4, 1]


def test_a_call_overrides_what_the_service_usually_does(tmp_path: Path) -> None:
    document = small(endpoints=endpoint("b", {"service": "b", "calls": []}, "b.twice"))
    twice = {"twice": [{"service": "c", "times": 2}]}
    document["services"]["b"] |= {"calls": ["c"], "operations": twice}  # type: ignore[index]
    assert expected_visits(load_application(written(tmp_path, document)))[0].tolist() == [1, 3, 3]


def test_tasks_are_rows_of_endpoints(tmp_path: Path) -> None:
    ends = {"GET /": {"service": "a"}, "POST /": {"service": "b"}}
    tasks = {
        "look": {"weight": 3, "requests": ["GET /"]},
        "send": {"weight": 1, "requests": ["POST /", "GET /"]},
    }
    application = load_application(
        written(tmp_path, small(endpoints=ends, tasks=tasks, think_seconds=[1, 3]))
    )
    program = compile_program(application)
    assert program.task_ptr.tolist() == [0, 1, 3]
    assert program.task_requests.tolist() == [0, 1, 0]
    assert program.task_weights.tolist() == [3, 1]
    assert (program.think_low, program.think_high) == (1, 3)
    assert endpoint_shares(application).tolist() == [0.8, 0.2]


def test_units_become_cores_seconds_and_bytes(tmp_path: Path) -> None:
    document = small()
    warmup = {"seconds": 60, "slowdown": 2}
    document["services"]["a"] |= {"warmup": warmup, "idle_millicores": 3}  # type: ignore[index]
    program = compile_program(load_application(written(tmp_path, document)))
    assert (program.request_cores[0], program.limit_cores[0], program.idle_cores[0]) == (0.1, 0.2, 0.003)
    assert program.limit_memory_bytes[0] == 128 * 1024 * 1024
    assert program.demand_seconds[0] == 0.004
    assert (program.warm_seconds.tolist(), program.warm_slowdown.tolist()) == ([60, 0, 0], [2, 1, 1])


# ----------------------------------------------------------------------------------------------------- errors
def broken(key: str, value: object) -> dict[str, object]:
    document = small()
    document["services"]["a"][key] = value  # type: ignore[index]
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (broken("demand", 3), ["services.a.demand", "unknown key", "demand_ms"]),
        (broken("demand_ms", "much"), ["services.a.demand_ms", "'much'"]),
        (broken("demand_ms", 0), ["services.a.demand_ms", "greater than 0"]),
        (broken("limit_millicores", 50), ["services.a", "request above its limit"]),
        (broken("idle_millicores", 200), ["services.a", "idle_millicores"]),
        (broken("warmup", {"seconds": 9, "slowdown": 0.5}), ["services.a.warmup.slowdown"]),
        (broken("calls", ["a"]), ["circle", "a -> a"]),
        (broken("calls", ["ghost"]), ["services.a.calls.0", "unknown service 'ghost'", "a, b, c"]),
        (
            small(endpoints=endpoint({"service": "b", "calls": ["ghost"]})),
            ["endpoints.GET /.calls.0.calls.0", "'ghost'"],
        ),
        (
            small(endpoints=endpoint({"parallel": ["b", "ghost"]})),
            ["endpoints.GET /.calls.0.parallel.1", "'ghost'"],
        ),
        (small(endpoints=endpoint("b.jump")), ["unknown operation 'jump' of b", "none"]),
        (small(endpoints=endpoint({"times": 2})), ["endpoints.GET /.calls.0", "service"]),
        (
            small(endpoints=endpoint({"service": "b", "parallel": ["c"]})),
            ["endpoints.GET /.calls.0", "parallel"],
        ),
        (small(endpoints=endpoint({"parallel": [{"parallel": ["b"]}]})), ["groups"]),
        (small(endpoints=endpoint({"service": "b", "on_failure": "panic"})), ["on_failure", "'panic'"]),
        (small(endpoints=endpoint({"service": "b", "probability": 2})), ["probability"]),
        (small(endpoints={"GET /": {"service": "ghost"}}), ["endpoints.GET /", "'ghost'"]),
        (
            small(tasks={"t": {"weight": 1, "requests": ["GET /x"]}}),
            ["tasks.t.requests", "'GET /x'", "GET /"],
        ),
        (small(tasks={"t": {"weight": 0, "requests": ["GET /"]}}), ["weight"]),
        (small(tasks={"t": {"weight": 1, "requests": []}}), ["tasks.t.requests"]),
        (small(think_seconds=[3, 1]), ["think_seconds", "low <= high"]),
        (small(colour="red"), ["colour", "unknown key", "services"]),
    ],
)
def test_a_broken_file_is_refused_with_file_and_key(
    tmp_path: Path, document: dict[str, object], words: list[str]
) -> None:
    path = written(tmp_path, document)
    with pytest.raises(SettingsError) as caught:
        load_application(path)
    for word in [path, *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "boutiqe",
        "synthetic:",
        "synthetic:1",
        "synthetic:many",
        "synthetic:9:x",
        "no/such.yaml",
        "synthetic:10001",
        "synthetic:99999999",
        "synthetic:9:" + "9" * 30,
    ],
)
def test_an_unknown_application_is_refused_with_its_name(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_application(name)


def test_a_program_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.engine.program.MAX_OPS", 1000)
    with pytest.raises(SettingsError, match="operations"):
        compile_program(
            loaded(tmp_path, {"service": "b", "times": 20, "calls": [{"service": "c", "times": 20}]})
        )


# ------------------------------------------------------------------------------------------------- variations
def test_sigma_draws_demands_and_counts_around_the_files_with_the_same_mean() -> None:
    plain = load_application("boutique")
    demand, visits = [], []
    for seed in range(150):
        varied = load_application("boutique", sigma=0.3, seed=seed)
        demand.append(truth.mean_demand(varied) / truth.mean_demand(plain))
        visits.append(expected_visits(varied).sum(1))
    logs = np.log(demand)
    assert logs.std() == pytest.approx(0.3, rel=0.05)
    assert np.mean(demand) == pytest.approx(1, abs=0.02)
    assert np.mean(visits, axis=0) == pytest.approx(expected_visits(plain).sum(1), rel=0.05)
    assert abs(np.corrcoef(logs.T) - np.eye(10)).max() < 0.25  # one factor a service


def test_a_seed_draws_the_same_application_and_another_another() -> None:
    one, again, other = (load_application("boutique", sigma=0.3, seed=seed) for seed in (5, 5, 6))
    assert one == again != other
    assert load_application("boutique", sigma=0.0, seed=5) == load_application("boutique")


def test_variation_keeps_the_call_graph() -> None:
    for name in SHIPPED:
        assert edges(compile_program(load_application(name, sigma=0.3, seed=3))) == edges(
            compile_program(load_application(name))
        )


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 400), seed=st.integers(0, 2**32 - 1))
def test_a_generated_application_is_whole_for_any_size_and_seed(size: int, seed: int) -> None:
    application = load_application(f"synthetic:{size}:{seed}")
    program = compile_program(application)
    assert program.num_services == size
    assert (expected_visits(application).sum(0) > 0).all()
    inner = program.edges[program.edges[:, 0] >= 0]
    graph = np.zeros((size, size))
    graph[inner[:, 0], inner[:, 1]] = 1
    assert not np.linalg.matrix_power(graph, 6).any(), "layers: no circle, no chain longer than five calls"
    for row in range(len(program.endpoints)):
        walk(program, row, np.random.default_rng(0))


@pytest.mark.parametrize("size", [50, 100, 1000, 3000])
def test_a_generated_request_makes_a_few_dozen_visits_whatever_the_size(size: int) -> None:
    application = load_application(f"synthetic:{size}")
    assert 12 <= endpoint_shares(application) @ expected_visits(application).sum(1) <= 40


def test_a_branch_is_a_task_whatever_it_holds() -> None:
    group = Parallel((Call(0), Call(0, calls=(Parallel((Call(0), Call(0))),))))
    assert tasks_at_once((group,)) == 1 + 1 + 3
