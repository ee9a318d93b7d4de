"""What git knows of several folders of one repository, asked at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploykit import cache, memory, source, worktree
from deploykit.config.project import Source


@pytest.fixture(autouse=True)
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ann")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.org")


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository with three apps, one in a folder that git would take for a pattern."""
    place = tmp_path / "all"
    for name in ("one", "two", "[ab]*", "a"):
        (place / name).mkdir(parents=True)
        (place / name / "manage.py").write_text(name)
        (place / name / "old name").write_text(f"much text of {name}\n" * 20)
    run(place, "init", "--quiet", "--initial-branch", "main")
    run(place, "add", ".")
    run(place, "commit", "--quiet", "--message", "first")
    return place


def test_each_folder_has_its_own_files_and_state(top: Path) -> None:
    commit = run(top, "rev-parse", "--short=7", "HEAD")
    (top / "two/manage.py").write_text("changed")
    (top / "[ab]*/new.py").write_text("")
    run(top, "mv", "a/old name", "a/new\tname")
    found = worktree.survey([top / "one", top / "two", top / "[ab]*", top / "a", top])
    assert found[top / "one"] == worktree.Work(("manage.py", "old name"), commit)
    assert found[top / "two"] == worktree.Work(("manage.py", "old name"), f"{commit} + changes")
    assert set(found[top / "[ab]*"].paths) == {"manage.py", "new.py", "old name"}
    assert found[top / "[ab]*"].label == f"{commit} + changes"
    assert set(found[top / "a"].paths) == {"manage.py", "new\tname"}
    assert found[top / "a"].label == f"{commit} + changes"
    assert len(found[top].paths) == 9 and found[top].label.endswith(" + changes")


def test_moved_from_one_app_to_another_changes_both(top: Path) -> None:
    run(top, "mv", "one/old name", "two/moved")
    found = worktree.survey([top / "one", top / "two", top / "a"])
    assert [each.label.endswith(" + changes") for each in found.values()] == [True, True, False]


def test_a_folder_that_is_new_as_a_whole(top: Path) -> None:
    (top / "apps/new").mkdir(parents=True)
    (top / "apps/new/manage.py").write_text("")
    found = worktree.survey([top / "one", top / "apps/new"])
    assert found[top / "apps/new"].paths == ("manage.py",)
    assert found[top / "apps/new"].label.endswith(" + changes")
    assert not found[top / "one"].label.endswith(" + changes")


def test_several_repositories_and_none(top: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "manage.py").write_text("")
    run(other, "init", "--quiet")
    bare = tmp_path / "bare"
    bare.mkdir()
    found = worktree.survey([top / "one", other, bare, tmp_path / "not there"])
    assert set(found) == {top / "one", other}
    assert found[other] == worktree.Work(("manage.py",), "not committed yet")


def test_several_sources_at_once_are_what_they_are_alone(top: Path) -> None:
    (top / "two/manage.py").write_text("changed")
    names = ("one", "two", "a")
    together = source.read_all({name: (Source(folder=top / name), ()) for name in names})
    for name in names:
        assert together[name] == source.read(Source(folder=top / name), (), name)


def test_what_was_read_is_remembered_by_its_content(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "one/manage.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")')
    (top / "one/config").mkdir()
    (top / "one/config/settings.py").write_text('STATIC_URL = "/s/"\nimport os\nos.environ["KEY"]\n')
    tree = source.read(Source(folder=top / "one"), (), "one")
    first = memory.detect(tree)
    assert (first.settings, first.static_url, first.env) == ("config.settings", "/s/", {"KEY": True})
    with monkeypatch.context() as patch:
        patch.setattr(memory.detection, "detect", lambda *given: pytest.fail("it was read again"))
        assert memory.detect(tree) == first
    (top / "one/config/settings.py").write_text('STATIC_URL = "/t/"\n')
    assert memory.detect(source.read(Source(folder=top / "one"), (), "one")).static_url == "/t/"
    for kept in (cache.FOLDER / "detected").iterdir():
        kept.write_text("{")  # as a full disk leaves it
    assert memory.detect(source.read(Source(folder=top / "one"), (), "one")).static_url == "/t/"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Git's subcommands as they were begun."""
    found: list[str] = []
    start = worktree._start
    monkeypatch.setattr(worktree, "_start", lambda words, folder: found.append(words[0]) or start(words, folder))
    monkeypatch.setattr(worktree, "_surveyed", {})
    return found


def test_what_was_asked_ahead_is_not_asked_again(top: Path, asked: list[str]) -> None:
    folders = [top / "one", top / "[ab]*"]
    first = worktree.survey(folders)
    ((place, places),) = worktree.surveyed()
    assert place == top and asked == ["status", "ls-files"]
    worktree.begin(place, places)
    assert asked == ["status", "ls-files"] * 2
    assert worktree.survey(folders) == first and len(asked) == 4
    (top / "one/new.py").write_text("")
    assert worktree.survey(folders) != first and len(asked) == 6, "each answer counts once"


def test_what_was_asked_ahead_in_vain_hurts_nobody(top: Path, asked: list[str], tmp_path: Path) -> None:
    worktree.begin(tmp_path / "gone", ("app",))
    worktree.begin(top, ("one", "two"))
    assert set(worktree.survey([top / "one"])) == {top / "one"} and len(asked) == 6
