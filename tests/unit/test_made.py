"""A manifest is made once for equal hosts, facts, templates and code, and never an old one for others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_manifest import BOOKWORM, MEMORIES, READER, WEB1

from deploykit import cache, made, manifest
from deploykit.agent.resource import HostSecret
from deploykit.agent.values import Code, Host
from deploykit.detect import Detected
from deploykit.errors import DeploykitError

OPEN = replace(WEB1, apps=(replace(MEMORIES, env={"KEY": HostSecret("KEY", make=20), "PLAIN": "ü"}), READER))
Make = Callable[..., made.Made]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache is the test's own."""
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache")
    return tmp_path / "cache" / "manifests"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Host]:
    """The hosts whose manifest was really made."""
    found: list[Host] = []
    build = manifest.build

    def noted(host: Host, *args: Any) -> manifest.Manifest:
        found.append(host)
        return build(host, *args)

    monkeypatch.setattr(manifest, "build", noted)
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    return place


def make(project: Path, host: Host = OPEN, **other: Any) -> made.Made:
    given = {"facts": BOOKWORM, "agent": "1" * 32, "detected": {}, **other}
    return made.make(host, given["facts"], project, given["agent"], given["detected"])


def test_equal_ones_are_made_once(project: Path, built: list[Host], folder: Path) -> None:
    detected = {"memories": Detected(root="", env={"TOKEN": True, "DEBUG": False})}
    first = make(project, detected=detected)
    assert first.text == manifest.build(OPEN, BOOKWORM, project).text and len(built) == 2
    assert any(note.warning and "TOKEN" in note.text for note in first.notes), first.notes
    assert any("DEBUG" in note.text for note in first.asides)
    assert any("MiB" in note.text for note in first.notes)
    again = make(project, replace(OPEN), facts=replace(BOOKWORM), detected=detected)
    assert again == first and again.digest == first.digest and len(built) == 2
    assert folder.stat().st_mode & 0o077 == 0


def test_others_are_made_anew(project: Path, built: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    make(project)
    memories, reader = OPEN.apps
    hosts = (
        replace(OPEN, apps=(replace(memories, env={"KEY": HostSecret("KEY", make=20), "PLAIN": "u"}), reader)),
        replace(OPEN, apps=(replace(memories, env={"KEY": HostSecret("KEY", make=21), "PLAIN": "ü"}), reader)),
        replace(OPEN, apps=(replace(memories, code=Code("f" * 64)), reader)),
        replace(OPEN, apps=(reader, memories)),
        replace(OPEN, roles=("app",)),
    )
    for number, host in enumerate(hosts, 2):
        make(project, host)
        assert len(built) == number
    make(project, facts=replace(BOOKWORM, memory=4096))
    make(project, agent="2" * 32)
    monkeypatch.setattr(made, "_code", lambda: [("deploykit/manifest.py", 1)])
    make(project)
    assert len(built) == len(hosts) + 4


def test_a_template_of_the_project_counts(project: Path, built: list[Host]) -> None:
    plain = make(project)
    place = project / "templates/nginx/site.conf.j2"
    place.parent.mkdir(parents=True)
    place.write_text("# mine\n")
    mine = make(project)
    assert mine != plain and "# mine" in mine.text and len(built) == 2
    place.write_text("# mime\n")  # as long as before
    assert "# mime" in make(project).text
    (project / "templates/nginx/part.j2").write_text("from elsewhere")
    place.write_text('{% include "nginx/part.j2" %}')
    assert "from elsewhere" in make(project).text
    (project / "templates/nginx/part.j2").write_text("from somewhere")
    assert "from somewhere" in make(project).text
    for left in place.parent.iterdir():
        left.unlink()
    assert make(project) == plain


def test_all_of_our_code_that_makes_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {Path(str(mark[0])) for mark in made._code()}
    package = Path(made.__file__).parent
    assert {package / "rendering.py", package / "manifest.py", package / "templates/nginx/site.conf.j2"} <= marks
    assert any(place.name == "__init__.py" and place.parent.name == "jinja2" for place in marks)


def test_a_secret_in_the_clear_is_never_kept(project: Path, built: list[Host], folder: Path) -> None:
    first, again = make(project, WEB1), make(project, WEB1)
    assert "hush-hush" in first.text and again == first and len(built) == 2
    assert list(folder.iterdir()) == []


def test_what_recipes_of_the_project_make_is_never_kept(project: Path, built: list[Host], folder: Path) -> None:
    (project / "recipes").mkdir()
    make(project)
    make(project)
    assert len(built) == 2 and not folder.exists()


def test_a_folder_that_templates_are_linked_from_is_not_trusted(
    project: Path, built: list[Host], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (project / "templates").mkdir()
    (project / "templates/nginx").symlink_to(tmp_path / "shared")
    make(project)
    make(project)
    assert len(built) == 2 and list(folder.iterdir()) == []


def test_a_damaged_one_is_made_anew(project: Path, built: list[Host], folder: Path) -> None:
    first = make(project)
    (place,) = folder.iterdir()
    whole = place.read_text()
    for text in ("", whole[:-10], whole.replace("memories.example", "memories.exampel"), "{}\n{}", "\x00"):
        place.write_text(text)
        before = len(built)
        assert make(project) == first and len(built) == before + 1
    make(project)
    assert place.read_text() == whole and len(built) == 6


def test_what_others_may_write_is_not_read(project: Path, built: list[Host], folder: Path) -> None:
    make(project)
    folder.chmod(0o777)
    make(project)
    assert len(built) == 2


def test_a_mistake_is_told_each_time(project: Path, folder: Path) -> None:
    place = project / "templates/nginx/site.conf.j2"
    place.parent.mkdir(parents=True)
    place.write_text("{{ nobody }}")
    for _ in range(2):
        with pytest.raises(DeploykitError, match="nobody"):
            make(project)
    assert list(folder.iterdir()) == []


def test_old_ones_go(project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_MOST", 3)
    for memory in (1000, 2000, 3000, 4000, 5000):
        make(project, facts=replace(BOOKWORM, memory=memory))
    assert len(list(folder.iterdir())) == 4
