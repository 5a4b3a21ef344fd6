"""The pages lead somewhere: links, pictures, anchors, paths and commands; their lists are the code's."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache

import pytest
from helpers.paths import ROOT

from deepscaler.control.recorder import ACTING, DRY_RUN, STANDBY
from deepscaler.pictures.architecture import BANDS, BOXES, draw_architecture
from deepscaler.policies.base import Reason
from deepscaler.runs import DECISION_COLUMNS
from deepscaler.settings import GuardRails
from testbed.experiments.demo import STAGES
from testbed.experiments.documents import documents
from testbed.experiments.documents import main as documents_main

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
HOUSE = re.compile(
    r"(?<![\w/.<-])(?:deepscaler|model|testbed|config|tests|sendFlow|deploy|benchmarks)/[\w./-]*"
)
"""What looks like a path of the repository. One with <name> or * in it is judged by the folder before it."""
MADE = {"config/cluster.yaml"}
"""Made by a command of docs/cluster.md."""


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    return BLOCK.sub("", text(page))


def commands(page: str) -> list[list[str]]:
    """Words of each command in the page's code blocks, without comments."""
    blocks = [
        body for language, body in BLOCK.findall(text(page)) if language == "sh" or page == "docs/cluster.md"
    ]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def anchors(page: str) -> set[str]:
    """Anchors of the page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_and_pictures_lead_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        inside = path.resolve().relative_to(ROOT.resolve()).as_posix()
        if not path.exists() or (anchor and anchor not in anchors(inside)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_backticks_exist(page):
    quoted = re.findall(r"`([^`\n]+)`", prose(page))
    named = {match.rstrip(".") for words in quoted for match in HOUSE.findall(words)} - MADE
    missing = []
    for name in sorted(named):
        whole = name.endswith("/") or re.search(r"\.\w+$", name) or (ROOT / name).exists()
        path = ROOT / name if whole else (ROOT / name).parent  # cut at a <name> or a *
        if not path.exists():
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_scripts_and_modules_that_exist(page):
    asked = [words[1:] for words in commands(page) if words[0] == "python"]
    inline = re.findall(r"`python (-m \S+?|\S+\.py)[`\s]", prose(page))
    for words in [*asked, *(found.split() for found in inline)]:
        file = f"{words[1].replace('.', '/')}" if words[0] == "-m" else words[0].removesuffix(".py")
        places = [ROOT / f"{file}.py", ROOT / file / "__main__.py"]
        assert words[:2] in (["-m", "pytest"], ["-m", "json.tool"]) or any(
            place.is_file() for place in places
        ), words


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.MULTILINE))
    named = {word for found in re.findall(r"`make ([a-z -]+)`", prose(page)) for word in found.split()}
    named |= {words[1] for words in commands(page) if words[0] == "make"}
    assert named <= targets


def test_the_readme_fits_on_one_screen():
    assert len(text("README.md").splitlines()) <= 110


def test_the_readme_shows_the_commands_that_the_demo_runs():
    shown = [" ".join(words) for words in commands("README.md") if words[0] == "python" and "-m" not in words]
    assert [command for command in shown if "live.yaml" not in command] == list(STAGES.values())


def test_no_number_of_the_demo_is_typed():
    """The pages are what `make docs` writes from docs/results.json."""
    kept = json.loads(text("docs/results.json"))
    assert len(kept["policies"]) == 10
    assert {name: text(name) for name in documents(kept, ROOT)} == documents(kept, ROOT)


def test_what_is_kept_of_a_summary_is_enough_for_the_pages(tmp_path, capsys):
    kept = json.loads(text("docs/results.json"))
    row = kept["policies"]["hpa_70"]
    row["core_hours"], row["violation_rate"] = 2 * kept["policies"]["deepscaler"]["core_hours"], 0.5
    summary = {**kept, "paired": {"deepscaler": kept["paired"]}, "equal": {"deepscaler": kept["equal"]}}
    (tmp_path / "docs").mkdir()
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    for name in ("README.md", "docs/results.md"):
        (tmp_path / name).write_text(text(name), encoding="utf-8")
    arguments = ["--root", str(tmp_path), "--summary", str(tmp_path / "summary.json")]
    assert documents_main(arguments) == 0 and documents_main(arguments[:2]) == 0
    assert "written: README.md, docs/results.md" in capsys.readouterr().out
    for name in ("README.md", "docs/results.md"):
        assert "`hpa_70` violates 50.00 % at 100 % more cost" in (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text("no marks")
    assert documents_main(arguments) == 1
    assert capsys.readouterr().err.startswith("documents: the page has 0 blocks 'table'")


def test_every_page_is_in_the_readmes_index():
    linked = {target.partition("#")[0] for target in LINK.findall(text("README.md"))}
    assert set(PAGES) - {"README.md"} <= linked


def test_every_wing_is_listed():
    wings = [f"deepscaler/{path.parent.name}/" for path in (ROOT / "deepscaler").glob("*/__init__.py")]
    assert len(wings) >= 9
    for page in ("docs/design.md", "CONTRIBUTING.md"):
        assert [wing for wing in wings if f"`{wing}`" not in text(page)] == [], page


def table_words(page: str, heading: str) -> set[str]:
    """Words in backticks in the first cells of the tables below a heading, up to the next of its level."""
    level = heading.split(" ", maxsplit=1)[0]
    below = re.split(rf"^{level} ", prose(page).split(f"{heading}\n", maxsplit=1)[1], flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]+) \|", below, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_reason_and_column_of_a_decision_is_explained():
    assert table_words("docs/decisions.md", "## Reasons") == {reason.value for reason in Reason}
    assert table_words("docs/decisions.md", "## Columns of decisions.csv") == set(DECISION_COLUMNS)
    assert all(f"`{mode}`" in text("docs/decisions.md") for mode in (ACTING, DRY_RUN, STANDBY))


def test_every_guard_rail_is_explained():
    assert [name for name in GuardRails.model_fields if f"`{name}`" not in text("docs/decisions.md")] == []


def test_the_architecture_names_what_exists():
    named = [box.code for box in BOXES if box.code] + [
        band.note.partition(":")[0] for band in BANDS if ".py" in band.note
    ]
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs").glob("*.png")}
    assert len(sizes) >= 9 and max(sizes.values()) <= 150 * 1024, sizes


def test_the_architecture_is_drawn_and_small(tmp_path):
    draw_architecture(tmp_path / "architecture.png")
    for drawn in (tmp_path / "architecture.png", ROOT / "docs" / "architecture.png"):
        assert drawn.read_bytes().startswith(b"\x89PNG") and drawn.stat().st_size < 120_000
