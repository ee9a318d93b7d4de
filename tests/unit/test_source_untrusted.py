"""Sources that cannot be trusted or read: a repository's own configuration, pipes, endless patterns."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit import source
from deploykit.config.project import Source
from deploykit.errors import DeploykitError
from deploykit.ignore import Ignore

from .test_source import cache, write

__all__ = ["cache"]


def commit(folder: Path) -> None:
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", folder, *words], check=True)


def test_a_repository_is_released_whole_whatever_its_attributes_say(tmp_path: Path) -> None:
    attributes = "data.json export-ignore\nversion.py export-subst\n"
    repository = write(
        tmp_path / "r", **{"data_DOT_json": "{}", "version_DOT_py": "$Format:%H$", "_DOT_gitattributes": attributes}
    )
    os.symlink("data.json", repository / "link")
    (repository / "run").write_text("#!/bin/sh\n")
    (repository / "run").chmod(0o755)
    commit(repository)
    tree = source.read(Source(git=str(repository)), app="x")
    assert set(tree.entries) == {".gitattributes", "data.json", "version.py", "link", "run"}
    assert tree.read("version.py") == b"$Format:%H$" and tree.read("link") == b"data.json"
    assert tree.entries["run"].mode & 0o111 and tree.digest == source.read(Source(folder=repository)).digest


@pytest.mark.parametrize(
    "config",
    [
        "[core]\n\tfsmonitor = touch MARK; true\n",
        '[filter "x"]\n\tclean = touch MARK; cat\n\tsmudge = touch MARK; cat\n\trequired = true\n',
        "[include]\n\tpath = other\n",
        "[core]\n\thooksPath = hooks\n",
    ],
    ids=["fsmonitor", "filter", "include", "hooks"],
)
def test_what_a_repository_would_have_git_run_is_not_run(tmp_path: Path, config: str) -> None:
    mark = tmp_path / "ran"
    repository = write(tmp_path / "r", **{"a_DOT_txt": "x", "_DOT_gitattributes": "*.txt filter=x\n"})
    commit(repository)
    (repository / ".git/other").write_text(f'[filter "x"]\n\tclean = touch {mark}; cat\n')
    with (repository / ".git/config").open("a") as file:
        file.write(config.replace("MARK", str(mark)))
    (repository / "a.txt").write_text("y")  # so that git looks at it
    tree = source.read(Source(folder=repository))
    assert set(tree.entries) == {"a.txt", ".gitattributes"} and "changes" in tree.label
    assert not mark.exists()


def test_what_cannot_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as top:  # pytest's own folders are closed to other users
        os.chmod(top, 0o755)
        folder = write(Path(top) / "f", **{"in__a": "x"})
        for place, named in ((folder / "in/a", "in/a"), (folder / "in", "in")):
            place.chmod(0)
            assert f"{named} cannot be read" in as_nobody(lambda: source.read(Source(folder=folder)))
            place.chmod(0o755)


def as_nobody(work: Callable[[], object]) -> str:
    """The error that it is for a user who may not do everything, as root may."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.seteuid(65534)
            work()
        except Exception as error:  # noqa: BLE001 (shown by the parent)
            os.write(into, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    return os.read(out, 65536).decode()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_a_list_of_patterns_that_is_none(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "f", a="x")
    place = folder / ".deployignore"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_bytes(b"x" * (2 << 20))
    with pytest.raises(DeploykitError, match="deployignore"):
        source.read(Source(folder=folder))


def test_no_pattern_takes_for_ever() -> None:
    stars = Ignore(["*a*a*a*a*a*a*a*a*a*a*a*b", "x*y*/**/z*[ab]*c"])
    assert not stars("a" * 250) and stars("a" * 250 + "b") and stars("xxy1/q/zzbc")
    with pytest.raises(DeploykitError, match=r"\*\*"):
        Ignore(["**/a/**/b/**/c/**/d/**/e"])
