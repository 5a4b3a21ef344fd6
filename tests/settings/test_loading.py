"""Files that build on others, `--set`, and errors in one line that name the file with the bad key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT

from deepscaler.errors import SettingsError
from deepscaler.settings import ModelConfig, Section, Settings, Train, load_section, load_settings
from deepscaler.settings.describe import KINDS, _walk

BOUTIQUE = Path(__file__).parents[2] / "config" / "boutique.yaml"

APP = {
    "app": {
        "name": "shop",
        "services": {"web": None, "cart": {"deployment": "cart-v1"}},
        "entries": [{"name": "GET /", "service": "web"}],
    },
    "scale": {"seeds": [1, 2], "static_replicas": {"web": 3}},
}


def write(path: Path, **document: object) -> Path:
    """A settings file; directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def shop(directory: Path, **more: object) -> Path:
    return write(directory / "shop.yaml", **{**APP, **more})


def refusal(path: Path, *overrides: str, kind: type[Settings | Train | ModelConfig] = Settings) -> str:
    """The one line with which a file is refused, paths relative to its directory."""
    with pytest.raises(SettingsError) as caught:
        load_section(kind, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


# ---------------------------------------------------------------------------------------------------- extends
def test_mappings_merge_and_all_else_is_replaced(tmp_path: Path) -> None:
    shop(tmp_path)
    own = write(
        tmp_path / "own.yaml",
        extends="shop.yaml",
        app={"name": "own", "services": {"cart": {"container": "server"}}},
        scale={"seeds": [3], "static_replicas": {"cart": 2}},
        collect={"step": 5},
    )
    settings = load_settings(own)
    assert settings.app.name == "own" and settings.app.namespace == "default"
    assert list(settings.app.services) == ["web", "cart"]
    assert settings.app.services["cart"].deployment == "cart-v1"
    assert settings.app.services["cart"].container == "server"
    assert settings.app.entries[0].name == "GET /"
    assert settings.scale.seeds == [3] and settings.scale.static_replicas == {"web": 3, "cart": 2}
    assert settings.collect.step == 5


def test_a_base_may_itself_have_one_and_paths_are_relative_to_the_file_that_names_them(
    tmp_path: Path,
) -> None:
    shop(tmp_path)
    write(tmp_path / "below" / "middle.yaml", extends="../shop.yaml", scale={"period": 30, "quantile": 0.9})
    top = write(tmp_path / "top.yaml", extends="below/middle.yaml", scale={"period": 15})
    settings = load_settings(top, ["scale.seeds=[7]"])
    assert (settings.scale.period, settings.scale.quantile, settings.scale.seeds) == (15, 0.9, [7])


def test_loading_a_file_twice_gives_the_same_whatever_was_overridden_between(tmp_path: Path) -> None:
    shop(tmp_path)
    own = write(tmp_path / "own.yaml", extends="shop.yaml")
    before = load_settings(own)
    load_settings(own, ["scale.static_replicas.web=9"])
    assert load_settings(own) == before == load_settings(tmp_path / "shop.yaml")


def test_training_files_extend_each_other_too(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", num_iter=7, graph={"learner": "none"})
    own = write(tmp_path / "own.yaml", extends="base.yaml", graph={"max_graph_num": 2})
    train = load_section(Train, own)
    assert (train.num_iter, train.graph.learner, train.graph.max_graph_num) == (7, "none", 2)
    write(tmp_path / "sizes.yaml", AdapGLA={"order": 2})
    wide = write(tmp_path / "wide.yaml", extends="sizes.yaml", AdapGLA={"kernel": 7})
    assert load_section(ModelConfig, wide).AdapGLA.model_dump(include={"order", "kernel"}) == {
        "order": 2,
        "kernel": 7,
    }


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"a": "none"},
            "a.yaml: extends: none.yaml: no such file; the path is relative to the file that names it",
        ),
        (
            {"a": "b", "b": "none"},
            "b.yaml: extends: none.yaml: no such file; the path is relative to the file that names it",
        ),
        (
            {"a": "a"},
            "a.yaml: extends: the files go in a circle: a.yaml extends a.yaml",
        ),
        (
            {"a": "b", "b": "a"},
            "a.yaml: extends: the files go in a circle: a.yaml extends b.yaml extends a.yaml",
        ),
        (
            {"a": "b", "b": "c", "c": "d", "d": None},
            "a.yaml: extends: at most 2 bases in a row, found "
            "a.yaml extends b.yaml extends c.yaml extends d.yaml",
        ),
    ],
    ids=["missing", "missing below", "itself", "circle", "too long"],
)
def test_a_chain_that_leads_nowhere_is_one_line(
    tmp_path: Path, files: dict[str, str | None], says: str
) -> None:
    for name, base in files.items():
        write(tmp_path / f"{name}.yaml", **({"extends": f"{base}.yaml"} if base else APP))
    assert refusal(tmp_path / "a.yaml") == says


@pytest.mark.parametrize("base", [["shop.yaml"], 3, {"file": "shop.yaml"}])
def test_a_base_is_the_path_of_one_file(tmp_path: Path, base: object) -> None:
    path = write(tmp_path / "own.yaml", extends=base)
    assert refusal(path) == f"own.yaml: extends: expected the path of one file, found {base!r}"


def test_only_the_top_of_a_file_extends(tmp_path: Path) -> None:
    shop(tmp_path)
    path = write(tmp_path / "own.yaml", extends="shop.yaml", scale={"extends": "shop.yaml"})
    assert refusal(path).startswith("own.yaml: scale.extends: unknown key; allowed here: policy, policies")


# ----------------------------------------------------------------------------------------------------- errors
def test_an_error_names_the_file_in_which_the_key_stands(tmp_path: Path) -> None:
    shop(tmp_path, collect={"stepp": 5})
    own = write(tmp_path / "own.yaml", extends="shop.yaml", scale={"period": 30})
    assert refusal(own).startswith("shop.yaml: collect.stepp: unknown key; allowed here: step, start")
    shop(tmp_path)
    write(own, extends="shop.yaml", scale={"perriod": 30})
    assert refusal(own).startswith("own.yaml: scale.perriod: unknown key; allowed here: policy, policies")


def test_an_error_in_a_value_names_the_file_that_has_the_last_word(tmp_path: Path) -> None:
    shop(tmp_path, scale={"period": -1})
    own = write(tmp_path / "own.yaml", extends="shop.yaml", scale={"quantile": 0.9})
    assert refusal(own) == "shop.yaml: scale.period: Input should be greater than 0 (found -1)"
    write(own, extends="shop.yaml", scale={"period": -2})
    assert refusal(own) == "own.yaml: scale.period: Input should be greater than 0 (found -2)"


def test_an_error_of_a_whole_section_names_all_files_that_made_it(tmp_path: Path) -> None:
    shop(tmp_path, scale={"guard_rails": {"min_replicas": 5}})
    own = write(tmp_path / "own.yaml", extends="shop.yaml", scale={"guard_rails": {"max_replicas": 4}})
    assert refusal(own) == (
        "own.yaml (extends shop.yaml): scale.guard_rails: min_replicas 5 > max_replicas 4"
    )
    write(tmp_path / "bare.yaml")
    assert refusal(write(own, extends="bare.yaml")) == (
        "own.yaml (extends bare.yaml): app: missing, and it has no default"
    )


def test_an_error_in_a_list_names_its_file_and_position(tmp_path: Path) -> None:
    shop(tmp_path)
    entries = [{"name": "GET /", "service": "web"}, {"name": "GET /cart"}]
    own = write(tmp_path / "own.yaml", extends="shop.yaml", app={"entries": entries})
    assert refusal(own) == "own.yaml: app.entries.1.service: missing, and it has no default"


def test_a_broken_base_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("app:\n  name: [\n")
    assert refusal(write(tmp_path / "own.yaml", extends="broken.yaml")).startswith(
        "broken.yaml: line 3: not valid YAML ("
    )
    (tmp_path / "list.yaml").write_text("- app\n")
    assert refusal(write(tmp_path / "own.yaml", extends="list.yaml")) == (
        "list.yaml: expected sections (app, cluster, collect, process, scale, evaluate, testbed), found list"
    )


def test_a_value_that_was_set_for_one_command_is_not_blamed_on_a_base(tmp_path: Path) -> None:
    shop(tmp_path, scale={"period": 30})
    own = write(tmp_path / "own.yaml", extends="shop.yaml")
    assert refusal(own, "scale.period=-1").startswith(
        "own.yaml: scale.period: Input should be greater than 0"
    )


def test_a_file_that_cant_be_read_is_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == "none.yaml: no such file; the shipped ones are in config/"
    (tmp_path / "directory.yaml").mkdir()
    assert refusal(tmp_path / "directory.yaml") == "directory.yaml: can't be read (Is a directory)"


def test_a_mistyped_extends_is_answered_with_the_keys_there_are(tmp_path: Path) -> None:
    path = shop(tmp_path, extend="other.yaml")
    assert refusal(path) == (
        "shop.yaml: extend: unknown key; allowed here: "
        "extends, app, cluster, collect, process, scale, evaluate, testbed"
    )


# -------------------------------------------------------------------------------------------------- overrides
def test_overrides_make_the_sections_they_need_and_read_yaml(tmp_path: Path) -> None:
    settings = load_settings(
        shop(tmp_path),
        [
            "scale.guard_rails.forced={web: 2}",
            "process.prior_cutoff=1e-1",
            "collect.end=2026-01-05T01:00:00Z",
        ],
    )
    assert settings.scale.guard_rails.forced == {"web": 2}
    assert settings.process.prior_cutoff == 0.1
    assert settings.collect.end == "2026-01-05T01:00:00+00:00"


SEQUENCES = {
    "per_service": ("scale.guard_rails.per_service", {"frontend": [2, 8], "cartservice": [1, 3]}),
    "target": ("scale.explore.target", [0.4, 0.9]),
    "seconds": ("scale.explore.seconds", [60.0, 90.0]),
    "split": ("process.split", [0.5, 0.25, 0.25]),
    "course": ("testbed.load.course", [[0.0, 0.5], [60.0, 1.0]]),
}
"""Settings of a fixed number of values: key -> where it stands, and a value as YAML has it."""


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E-3", 0.001), ("+5e-1", 0.5), (".5e0", 0.5), ("5.e-1", 0.5), ("1.0e-3", 0.001)],
)
@pytest.mark.parametrize(
    "key",
    [
        "process.prior_cutoff",  # a share
        "scale.prices.shortage",  # a positive number in a section of a section
        "scale.guard_rails.quota_cores",  # a number or null
        "scale.floor.rho_max",  # a number or a word
        "testbed.needed_rho_max",
    ],
)
def test_a_number_may_have_an_exponent_whatever_else_a_key_may_hold(
    tmp_path: Path, key: str, text: str, value: float
) -> None:
    found: object = load_settings(shop(tmp_path), [f"{key}={text}"])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_numbers_with_exponents_stand_in_lists_and_files_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: {BOUTIQUE}\nscale: {{budget: 1e-2, explore: {{target: [1e-1, 9e-1]}}}}\n")
    scale = load_settings(path).scale
    assert scale.budget is not None and scale.budget.share == 0.01
    assert scale.explore.target == (0.1, 0.9)


@pytest.mark.parametrize("text", ["e3", "1e", "v1e3", "12ab34"])
def test_a_name_that_looks_a_little_like_a_number_stays_one(tmp_path: Path, text: str) -> None:
    assert load_settings(shop(tmp_path), [f"app.name={text}"]).app.name == text


@pytest.mark.parametrize("way", ["file", "--set"])
@pytest.mark.parametrize("key", SEQUENCES)
def test_a_setting_of_a_fixed_number_of_values_takes_a_list(tmp_path: Path, key: str, way: str) -> None:
    place, value = SEQUENCES[key]
    document: object = value
    for part in reversed(place.split(".")):
        document = {part: document}
    if way == "file":
        settings = load_settings(write(tmp_path / "own.yaml", extends=str(BOUTIQUE), **document))
    else:
        settings = load_settings(BOUTIQUE, [f"{place}={json.dumps(value)}"])
    found: object = settings.model_dump(mode="json")
    for part in place.split("."):
        found = found[part]
    assert found == value


def test_each_bound_of_a_service_can_be_set_alone() -> None:
    rails = load_settings(BOUTIQUE, ["scale.guard_rails.per_service.frontend=[2,8]"]).scale.guard_rails
    assert rails.bounds("frontend") == (2, 8)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_settings_of_a_fixed_number_of_values_are_tried(kind: type[Section]) -> None:
    """A tuple that only Python can give would be found out by the first user who sets it."""
    fixed = {
        name
        for _, section in _walk(kind, "")
        for name, info in section.model_fields.items()
        if "tuple[" in str(info.annotation)
    }
    assert fixed <= SEQUENCES.keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scale.period", "--set scale.period: expected section.key=value"),
        ("scale..period=3", "--set scale..period=3: expected section.key=value"),
        ("scale.seeds.first=3", "--set scale.seeds.first=3: 'seeds' is not a section"),
        ("scale.seeds=[1", "--set scale.seeds=[1: '[1' is not a YAML value"),
        ("extends=other.yaml", "shop.yaml: extends: unknown key; allowed here: extends, app"),
    ],
)
def test_an_override_that_cant_be_understood_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    assert refusal(shop(tmp_path), text).startswith(says)


# ----------------------------------------------------------------------------------------- impossible values
@pytest.mark.stress
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400", "nan", "inf"])
@pytest.mark.parametrize(
    "key",
    [
        "scale.period",
        "scale.stale_after",
        "scale.guard_rails.quota_cores",
        "collect.step",
        "scale.floor.seconds",
    ],
)
def test_a_number_that_isnt_finite_is_refused(tmp_path: Path, key: str, value: str) -> None:
    assert f"shop.yaml: {key}: " in refusal(shop(tmp_path), f"{key}={value}")


@pytest.mark.stress
def test_numbers_inside_lists_and_mappings_are_finite_too(tmp_path: Path) -> None:
    assert "finite" in refusal(shop(tmp_path), "scale.explore.target=[0.3, .inf]")
    assert "finite" in refusal(shop(tmp_path), "app.entries=[{name: GET /, service: web, sla: .nan}]")


@pytest.mark.stress
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scale: {period: 30}\nscale: {period: 60}\n", 2),
        ("scale:\n  period: 30\n  floor: {enabled: true, enabled: false}\n", 3),
        ("scale:\n  static_replicas:\n    web: 3\n    'web': 4\n", 4),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    shop(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: shop.yaml\n{text}")
    assert refusal(path).startswith(f"own.yaml: line {line + 1}: not valid YAML (the key ")


@pytest.mark.field
@pytest.mark.parametrize("said", ["null", "{}", "{container: server}"])
@pytest.mark.parametrize("name", ["web", "reviews.v1", "a.b.c"])
def test_a_service_can_be_left_alone_whatever_the_file_says_of_it(
    tmp_path: Path, said: str, name: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"app:\n  name: shop\n  services:\n    {name}: {said}\n    a: null\n    a.b: null\n"
        "  entries: [{name: GET /, service: a}]\n"
    )
    services = load_settings(path, [f"app.services.{name}.scaled=false"]).app.services
    assert {key: service.scaled for key, service in services.items()} == {"a": True, "a.b": True, name: False}


@pytest.mark.stress
def test_a_key_that_overrides_what_it_merges_isnt_given_twice(tmp_path: Path) -> None:
    shop(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(
        "extends: shop.yaml\napp:\n  services:\n    a: &a {deployment: a, container: x}\n"
        "    b: &b {<<: *a, deployment: b}\n    c: {<<: *b, deployment: c}\n"
    )
    services = load_settings(path).app.services
    assert [services[name].deployment for name in "abc"] == ["a", "b", "c"]


@pytest.mark.stress
@pytest.mark.parametrize(
    ("text", "value"),
    [("030", 30), ("007", 7), ("0x1f", 31), ("0o17", None), ("1:30", None), ("1_000", 1000), ("-05", None)],
)
def test_whole_numbers_are_what_people_read(tmp_path: Path, text: str, value: int | None) -> None:
    override = f"scale.guard_rails.max_replicas={text}"
    if value is None:
        assert "max_replicas" in refusal(shop(tmp_path), override)
    else:
        assert load_settings(shop(tmp_path), [override]).scale.guard_rails.max_replicas == value


@pytest.mark.stress
@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("collect.window=0s", "should match pattern"),
        ("collect.window=0m0s", "should match pattern"),
        ("cluster.prometheus.url=http://prometheus:99999", "0-65535"),
        ("cluster.prometheus.url=http://prometheus:http", "[Pp]ort"),
        ("cluster.prometheus.url=http://prometheus:0", "port is 0"),
        ("cluster.prometheus.url=http://:9090", "a host is missing"),
        ("cluster.jaeger.url='http://[::1'", "IPv6|netloc"),
    ],
)
def test_what_no_server_would_answer_is_refused_at_start(override: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        load_settings(BOUTIQUE, [override])


@pytest.mark.parametrize(
    "override",
    [
        "collect.window=0m30s",
        "collect.window=1m0s",
        "collect.window=010s",
        "cluster.prometheus.url='http://[::1]:9090/prometheus'",
        "cluster.prometheus.url='http://prometheus:'",
    ],
)
def test_unusual_spans_and_addresses_are_taken(override: str) -> None:
    assert load_settings(BOUTIQUE, [override])


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("testbed.initial_replicas=1000000000", "testbed.initial_replicas"),
        ("scale.guard_rails.max_replicas=1000000000000000000000", "scale.guard_rails.max_replicas"),
        ("testbed.history=1.0e+300", "testbed.history"),
        ("testbed.earlier=1.0e+300", "testbed.earlier"),
        ("testbed.seed=1000000000000000000000000000", "testbed.seed"),
        ("scale.seeds=[1000, 1000]", "scale.seeds.*1000 stands there twice"),
    ],
)
def test_what_no_run_would_end_with_is_refused_at_start(override: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        load_settings(ROOT / "config/boutique.yaml", [override])
