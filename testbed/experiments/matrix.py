"""The matrix of an experiment: its cases, who takes part in each, and the runs that come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from deepscaler.artefacts import write_text
from deepscaler.errors import DataError, SettingsError
from deepscaler.policies.registry import check_name, files_read
from deepscaler.runs import PolicyName, read_info
from deepscaler.settings import (
    TEST_SEEDS,
    ApplicationCase,
    Experiment,
    Load,
    Settings,
    Sweep,
    Testbed,
    load_settings,
)
from testbed.applications.loading import application_files
from testbed.applications.synthetic import PREFIX
from testbed.experiments.draft import draft
from testbed.experiments.references import played
from testbed.shapes import TRACES

INDIFFERENT = ("policy", "policies", "seeds", "shapes", "workers", "run_dir")
"""Keys of `scale` that a run of a named policy, load and seed doesn't depend on."""
DATA_SECTIONS = ("app", "cluster", "collect", "process", "testbed")
"""Settings that telemetry and the demand fit depend on."""
BROKEN = "a run is broken; remove {} and run the experiment again"
TEST = "test"
"""Below this directory of an experiment lie the runs of `--test`."""


@dataclass(frozen=True)
class Entrant:
    """Who takes part in a case.

    Attributes:
        name: what tables call it.
        policy: the policy that runs.
        set: overrides for it alone.
        sweep: the sweep of which it is a point; "" if of none.
    """

    name: PolicyName
    policy: str
    set: tuple[str, ...] = ()
    sweep: str = ""


@dataclass(frozen=True)
class Case:
    """One combination of application, load and levels: all policies in it see the same loads.

    Attributes:
        place: coordinate -> value: `application` (if there are several), `load`, and each factor.
        directory: below it lie its runs.
        config: settings of the application.
        overrides: all that the case changes in them.
        data: where telemetry and the demand fit of the case itself are, or will be; None: those of the
            application.
        entrants: who takes part.
        seeds: one load for each.
    """

    place: Mapping[str, str]
    directory: Path
    config: str
    overrides: tuple[str, ...]
    data: Path | None
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The values of its coordinates."""
        return "/".join(self.place.values())

    @cached_property
    def settings(self) -> Settings:
        """The settings of the application in this case.

        Raises:
            SettingsError: they can't be read.
        """
        return self._settings(())

    def settings_of(self, entrant: Entrant) -> Settings:
        """The settings under which `entrant` runs.

        Raises:
            SettingsError: they can't be read.
        """
        return self._settings(entrant.set) if entrant.set else self.settings

    def _settings(self, further: tuple[str, ...]) -> Settings:
        place = f"scale.run_dir={self.directory}"
        return load_settings(self.config, [*self.overrides, *self.of_data, *further, place])

    @property
    def of_data(self) -> tuple[str, ...]:
        """Overrides that say where the data of the case itself are."""
        if self.data is None:
            return ()
        places = (f"{section}.output_dir={self.data}" for section in ("collect", "process"))
        return (*places, f"scale.bundle={self.data}/none.pt")


@dataclass(frozen=True)
class Task:
    """One run: an entrant on one seed of a case."""

    case: Case
    entrant: Entrant
    seed: int
    settings: Settings

    @property
    def place(self) -> Path:
        """The run directory."""
        return self.case.directory / f"{self.entrant.name}-{self.seed}"

    @property
    def hours(self) -> float:
        """Virtual hours that are simulated."""
        return (self.settings.testbed.history + (self.settings.scale.duration or self.bed_duration)) / 3600

    @property
    def bed_duration(self) -> float:
        """`testbed.duration`, which counts where `scale.duration` is null."""
        return self.settings.testbed.duration

    def about(self) -> dict[str, Any]:
        """What run.json keeps beside what every run keeps: the policy that ran, and hashes of files read.

        These are the files that the policy is made from, the trace that is replayed as the load, and the
        application that is emulated.
        """
        files = [*files_read(self.entrant.policy, self.settings), *_traces(self.load)]
        return {
            "plays": self.entrant.policy,
            "inputs": {**_hashes(files), **_application(self.settings.testbed)},
        }

    @property
    def load(self) -> Load:
        """What the run is loaded with."""
        return played(self.settings, self.seed).testbed.load

    def finished(self) -> dict[str, Any] | None:
        """What run.json says; None if the run isn't there yet.

        Raises:
            SettingsError: a run of other settings, or with another bundle, lies in its place.
        """
        if not (self.place / "run.json").is_file():
            return None
        try:
            found = read_info(self.place / "run.json")
        except DataError as error:
            raise DataError(f"{error.args[0]}: {BROKEN.format(self.place)}") from error
        asked = played(self.settings, self.seed).model_dump(mode="json")
        why = _difference(found, asked, self.about())
        if why:
            raise SettingsError(
                f"{self.place}: a run of other settings ({why}); remove it or choose another `output`"
            )
        return found

    def made_of(self) -> dict[str, Any]:
        """All that the run depends on. Data that the case itself collects follow from its settings."""
        about, data = self.about(), self.case.data
        inputs = {
            path: digest
            for path, digest in about["inputs"].items()
            if data is None or not Path(path).is_relative_to(data)
        }
        settings = _decisive(played(self.settings, self.seed).model_dump(mode="json"))
        return {**about, "inputs": inputs, "settings": settings, "seed": self.seed}

    @cached_property
    def load_key(self) -> str:
        """The same for all runs that see the same load: it names what their truth depends on."""
        used = self.settings.model_dump(mode="json", include={"app", "testbed", "collect", "process"})
        scale = self.settings.scale
        load = [
            played(self.settings, self.seed).testbed.model_dump(mode="json"),
            scale.guard_rails.max_replicas,
            _hashes(_traces(self.load)),
            _application(self.settings.testbed),
        ]
        return hashlib.sha256(json.dumps([used, load, self.seed]).encode()).hexdigest()


def _difference(found: Mapping[str, Any], asked: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """What a run depends on and that isn't as asked; "" if nothing."""
    settings = found.get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("scale"), dict):
        return "it states none"
    inputs = found.get("inputs")
    for path, digest in inputs.items() if isinstance(inputs, dict) else ():
        if about["inputs"].get(path, digest) != digest:  # first: directories of data are named after some
            return f"{path} has changed since"
    one, other = _flat(_decisive(settings)), _flat(_decisive(asked))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            return f"{key} is {one.get(key)!r}, asked is {other.get(key)!r}"
    if found.get("plays", about["plays"]) != about["plays"]:
        return f"the policy is {found['plays']}, asked is {about['plays']}"
    return ""


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on: all settings but those that say what else is run, where and how it is judged."""
    scale = {key: value for key, value in settings.get("scale", {}).items() if key not in INDIFFERENT}
    return {**settings, "scale": scale, "evaluate": None}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted keys and what stands there; lists count as one value."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    return {
        name: item
        for part, inner in value.items()
        for name, item in _flat(inner, f"{key}.{part}" if key else str(part)).items()
    }


def _traces(load: Load) -> list[Path]:
    """The file that a load is replayed from, if it is."""
    path = Path(load.shape.partition("#")[0])
    return [path] if path.suffix in TRACES else []


def _application(bed: Testbed) -> dict[str, str]:
    """The hash of the files of the application that is emulated; empty for a generated one."""
    files = application_files(bed.application)
    together = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return {f"application {bed.application}": together} if files else {}


def _hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Hashes of those files that are there."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


# ------------------------------------------------------------------------------------------------- the matrix
def cases_of(
    experiment: Experiment,
    further: Sequence[str] = (),
    chosen: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Case]:
    """The cases of an experiment.

    Args:
        experiment: its settings.
        further: overrides of all runs, after all others.
        chosen: for `--test`: case -> names of the points of sweeps that are run, beside the baseline. Their
            seeds are the test seeds. None: all points on the experiment's seeds.

    Raises:
        SettingsError: a name stands for two policies, or what was chosen isn't there.
    """
    several = bool(experiment.applications)
    applications = experiment.applications or {"": ApplicationCase(config=str(experiment.config))}
    levels = product(*(sorted_levels.items() for sorted_levels in experiment.factors.values()))
    root = Path(experiment.output) / TEST if chosen is not None else Path(experiment.output)
    for (name, app), (load, case), combination in product(
        applications.items(), experiment.loads.items(), list(levels)
    ):
        place = {"application": name} if several else {}
        place |= {
            "load": load,
            **dict(zip(experiment.factors, (level for level, _ in combination), strict=True)),
        }
        policies = case.policies if case.policies is not None else experiment.policies
        entrants = entrants_of(experiment, policies)
        if chosen is not None:
            where = "/".join(place.values())
            if any(one.sweep for one in entrants) and where not in chosen:
                raise SettingsError(
                    f"--test: no points were chosen for {where}; run the experiment without --test first"
                )
            taken = chosen.get(where, ())
            absent = set(taken) - {str(one.name) for one in entrants}
            if absent:
                raise SettingsError(
                    f"--test: no point {min(absent)!r} in the sweeps of {where}, though "
                    "it was chosen; choose again: run the experiment without --test"
                )
            stay = {*taken, experiment.baseline}  # the others are paired with it in the test, too
            entrants = tuple(one for one in entrants if not one.sweep or str(one.name) in stay)
        config = drafted(app.config, Path(experiment.output))
        of_levels = [text for _, overrides in combination for text in overrides]
        overrides = (*experiment.set, *case.set, *app.set, *of_levels, *further)
        yield Case(
            place,
            root.joinpath(*place.values()),
            config,
            overrides,
            _data(experiment, config, overrides),
            entrants,
            _seeds(experiment, app, case.seeds, test=chosen is not None),
        )


def drafted(config: str, root: Path) -> str:
    """The settings' path; those of a generated application (`synthetic:100`) are drafted into `root` first.

    Raises:
        SettingsError: no such application.
    """
    if not config.startswith(PREFIX):
        return config
    path = root / "settings" / f"{config.replace(':', '_')}.yaml"
    if not path.is_file():
        write_text(path, draft(config, "app.schema.json"))
    return str(path)


def _data(experiment: Experiment, config: str, overrides: Sequence[str]) -> Path | None:
    """A directory for the data of all cases whose telemetry is the same.

    Its name comes of what settings say and not of where they stand: a file that is edited is another one.

    Raises:
        SettingsError: settings can't be read.
    """
    if not experiment.prepare:
        return None
    settings = load_settings(config, overrides)
    used = settings.model_dump(mode="json", include=set(DATA_SECTIONS), exclude={"testbed": {"history"}})
    bed = settings.testbed
    made_of = json.dumps([used, _hashes(_traces(bed.load)), _application(bed)])
    return Path(experiment.output) / "data" / hashlib.sha256(made_of.encode()).hexdigest()[:12]


def _seeds(
    experiment: Experiment, app: ApplicationCase, of_load: list[int] | None, *, test: bool
) -> tuple[int, ...]:
    if test:
        return tuple(app.test_seeds if app.test_seeds is not None else experiment.test_seeds)
    own = app.seeds if app.seeds is not None else of_load
    return tuple(own if own is not None else experiment.seeds)


def entrants_of(experiment: Experiment, policies: Sequence[str]) -> tuple[Entrant, ...]:
    """Who stands behind the names of `policies`: policies, variants, and the points of sweeps.

    Raises:
        SettingsError: two of them have one name.
    """
    found: dict[str, Entrant] = {}
    for name in policies:
        for entrant in _named(experiment, name):
            if found.setdefault(str(entrant.name), entrant) != entrant:
                raise SettingsError(f"policies: {entrant.name} stands for two of them; rename the sweep")
    return tuple(found.values())


def _named(experiment: Experiment, name: str) -> list[Entrant]:
    if name in experiment.variants:
        _not_a_policy("variants", name)
        variant = experiment.variants[name]
        return [Entrant(PolicyName(name, name), variant.policy, tuple(variant.set))]
    if name in experiment.sweeps:
        return [_point(name, experiment.sweeps[name], value) for value in experiment.sweeps[name].values]
    return [Entrant(PolicyName.parse(name), name)]


def _not_a_policy(key: str, name: str) -> None:
    try:
        check_name(name)
    except SettingsError:
        return
    raise SettingsError(f"{key}: {name} is the name of a policy that runs otherwise; choose another")


def _point(sweep: str, settings: Sweep, value: float) -> Entrant:
    """A point of a sweep, by the name of the policy that runs where that and nothing else tells points apart.

    `hpa_80` of a sweep over `hpa_r{}` would be taken for a policy that it isn't.
    """
    exact = str(int(value)) if value.is_integer() else repr(value)
    policy = settings.policy.replace("{}", exact)
    name = policy if "{}" in settings.policy and not settings.set else f"{sweep}_{exact}"
    overrides = tuple(text.replace("{}", exact) for text in settings.set)
    return Entrant(PolicyName(name, sweep, float(value)), policy, overrides, sweep)


def tasks_of(cases: Sequence[Case], only: Mapping[str, Sequence[str]] | None = None) -> list[Task]:
    """The runs of these cases: case by case, seed by seed.

    Args:
        cases: which.
        only: coordinate, `policy` or `seed` -> the values that are run; others aren't.

    Raises:
        SettingsError: settings can't be read, or nothing has such a value.
    """
    found: list[Task] = []
    for case in cases:
        settings = {one: case.settings_of(one) for one in case.entrants}
        found += [Task(case, one, seed, settings[one]) for seed in case.seeds for one in case.entrants]
    for key, values in (only or {}).items():
        known = list(dict.fromkeys(_value(task, key) for task in found))
        absent = [value for value in values if value not in known]
        if absent:
            raise SettingsError(f"--only: no {key} {absent[0]!r}; there are: {', '.join(known)}")
        found = [task for task in found if _value(task, key) in values]
    return found


def _value(task: Task, key: str) -> str:
    values = {**task.case.place, "policy": str(task.entrant.name), "seed": str(task.seed)}
    if key not in values:
        raise SettingsError(f"--only: unknown key {key!r}; keys: {', '.join(values)}")
    return values[key]


def seeds_for_test(tasks: Sequence[Task]) -> list[int]:
    """The test seeds among those of the runs."""
    return sorted({task.seed for task in tasks if task.seed in TEST_SEEDS})
