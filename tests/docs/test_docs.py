"""README and docs: links, command lines, lists and numbers of the registries in them are true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from backbones import SPECS
from harness.cli.main import app
from tests.docs.status_matrix import KINDS, matrix

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = ("harness", "methods", "backbones", "tasks", "results")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_dead(page):
    dead = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert {name_of(page) for page in PAGES} - {name_of(page) for page in reached} == set()


def commands(page: Path) -> list[str]:
    """The `harness` command lines in a page's sh blocks, continued lines joined, comments left out."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("harness ")]


COMMANDS = [(name_of(page), line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_line_parses(page, line):
    verb, *words = shlex.split(line, comments=True)[1:]
    group = typer.main.get_command(app)
    assert verb in group.commands, f"{page}: there is no harness {verb}"
    command = group.commands[verb]
    with command.make_context(verb, words) as context:
        assert context.args == []


def test_a_wrong_option_would_be_seen():
    command = typer.main.get_command(app).commands["run"]
    with pytest.raises(Exception, match="--methode"):
        command.make_context("run", ["--suite", "digits_w4a4", "--methode", "maskaq"])


def test_pages_hold_commands_at_all():
    assert {"README.md", "docs/tuning.md", "docs/tutorial.md"} <= {page for page, _ in COMMANDS}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 120


def test_the_readme_lists_every_verb_once():
    rows = re.findall(r"^\| (`harness \w+`(?:, `\w+`)*) \|", README.read_text(), re.MULTILINE)
    listed = [verb for row in rows for verb in re.findall(r"(\w+)`", row)]
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)


def test_the_status_matrix_is_what_the_registries_declare():
    assert "\n".join(matrix()) in README.read_text(), "write it anew: python -m tests.docs.status_matrix"


def test_the_status_matrix_knows_every_family():
    assert {spec.family for spec in SPECS.values()} == {name for names in KINDS.values() for name in names}


def test_every_package_is_in_the_tree():
    tree = max(blocks(ROOT / "docs" / "architecture.md", ""), key=len)
    folders, parents = set(), []
    for line in tree.splitlines():
        found = re.match(r"( *)([\w]+)/ ", line)
        if found:
            parents = [*parents[: len(found[1]) // 2], found[2]]
            folders.add("/".join(parents))
    packages = {
        init.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for init in (ROOT / package).rglob("__init__.py")
    }
    assert packages - folders == set()
    assert [folder for folder in sorted(folders) if not (ROOT / folder).is_dir()] == []


def test_the_python_example_runs(tmp_path):
    (program,) = blocks(ROOT / "docs" / "python.md", "python")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"psaq_vit \+ psaq_ptq", done.stdout)


def test_the_citation_names_the_version_and_licence_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert citation["cff-version"] == "1.2.0"
    assert f'\nversion = "{citation["version"]}"\n' in project
    assert f'\nlicense = "{citation["license"]}"\n' in project
    assert all(set(author) == {"name"} for author in citation["authors"])


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_carry_type_information(package):
    assert (ROOT / package / "py.typed").is_file()
