"""What the docs show must be so: configurations load, links lead somewhere, commands are tasks with these options."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.tasks import Task

from deploykit import tasks
from deploykit.config import loads

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n```(?P<kind>\w*)\n(?P<text>.*?)\n```", re.DOTALL)
#: A block right below this comment is said to be a part of a file: it loads together with the smallest app.
FRAGMENT = "<!-- fragment -->"
APP = '[apps.blog]\nsource = "../blog"\ndomains = ["blog.example"]\n'
COMMANDS: dict[str, Task] = {
    found.name.replace("_", "-"): found for found in map(tasks.__dict__.__getitem__, tasks.__all__)
}


def blocks(page: Path, kind: str) -> Iterator[tuple[str, bool]]:
    """(text, whether it is marked as a fragment) of each block of a kind."""
    for found in _BLOCK.finditer(page.read_text()):
        if found["kind"] == kind:
            yield found["text"], found["before"].strip() == FRAGMENT


def words(page: Path) -> Iterator[list[str]]:
    """Every `fab ...` and `deploykit ...` of a page, from blocks and from running text, as words."""
    text = page.read_text()
    lines = [line for block in re.findall(r"```\w*\n(.*?)\n```", text, re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`((?:fab|deploykit) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        found = re.match(r"(?:\$ |.*\| )?((?:fab|deploykit) [a-z-].*)", line)
        if found and "..." not in found[1]:
            yield shlex.split(
                found[1].partition("  #")[0].partition(" > ")[0].replace("[", "").replace("]", ""), comments=True
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_load(page: Path) -> None:
    for text, fragment in blocks(page, "toml"):
        whole = text if not fragment else f"{text}\n{'' if '[apps.blog]' in text else APP}"
        if "[apps." not in whole:
            whole += f"\n{APP}"
        project = loads(whole, ROOT / "deploykit.toml")
        assert project.names, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for text, _ in blocks(page, "python"):
        compile(text, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_tasks(page: Path) -> None:
    for program, *rest in words(page):
        if rest[0] == "-H":
            rest = rest[2:]
        name, *given = rest
        name = name.rstrip(",:.")
        assert name in COMMANDS, f"{page.name}: {program} {name}"
        command = COMMANDS[name]
        flags = {_option(each.name): each.default is False for each in _parameters(command)}
        places = len(command.positional or ()) or sum(each.default is each.empty for each in _parameters(command))
        shown = f"{page.name}: {program} {name} {' '.join(given)}"
        while given:
            word = given.pop(0)
            if not word.startswith("--"):
                places -= 1
                assert places >= 0, shown
                continue
            option, equals, _ = word.partition("=")
            assert option in flags, shown
            if not flags[option] and not equals:
                assert given, shown
                given.pop(0)


def _parameters(command: Task) -> list[inspect.Parameter]:
    return list(inspect.signature(command.body).parameters.values())[1:]


def _option(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")


def test_reference_is_as_generated() -> None:
    command = [sys.executable, "-m", "deploykit.config.reference"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "reference.md").read_text() == made.stdout, f"{' '.join(command[1:])} > docs/reference.md"
