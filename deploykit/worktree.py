"""What git knows of folders: their files and their state. It is asked once for each repository, not for each app."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deploykit.agent.dataclass import dataclass

#: What a repository's own configuration may not have git run: a source may be from anybody.
SAFE = (
    *("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never"),
    *("-c", "core.pager=cat", "-c", "core.untrackedCache=false"),
)
#: A filter of a repository's own is a program that git runs to compare a file.
_FILTER = re.compile(r"filter\.(.+)\.(?:clean|smudge|process|required)", re.DOTALL)

#: What git is being asked: where and what, and the process that will answer.
_begun: dict[tuple[Path, tuple[str, ...]], subprocess.Popen[bytes] | None] = {}
#: What was asked in this process (a set, in order).
_surveyed: dict[tuple[Path, Sequence[str]], None] = {}


@dataclass(frozen=True)
class Work:
    """A folder in a work tree: the files that belong to it, relative to it, and what a person calls its state."""

    paths: tuple[str, ...]
    label: str


def survey(folders: Iterable[Path]) -> Mapping[Path, Work]:
    """Those of `folders` that are in a work tree which git can read. Two processes for each repository."""
    tops: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in dict.fromkeys(folders):
        top = _top(folder)
        if top is not None and folder.is_dir():
            tops[top].append(folder)
    inside = {top: {each: os.path.relpath(each.resolve(), top) for each in those} for top, those in tops.items()}
    for top, places in inside.items():  # all at once: they are waited for
        begin(top, tuple(places.values()))
    found: dict[Path, Work] = {}
    for top, places in inside.items():
        found.update(_repository(top, places))
    return found


def _top(folder: Path) -> Path | None:
    real = folder.resolve()
    return next((place for place in (real, *real.parents) if (place / ".git").exists()), None)


def begin(top: Path, places: Sequence[str]) -> None:
    """Asks git about folders of a repository, relative to it, ahead of a `survey` of just these.

    Nobody need take the answers: these processes end with ours.
    """
    for question in _questions(places):
        if (top, question) not in _begun:
            _begun[top, question] = _start(question, top)


def surveyed() -> list[tuple[Path, Sequence[str]]]:
    """What this process has surveyed, for a later one to `begin`."""
    return list(_surveyed)


def _questions(places: Sequence[str]) -> Sequence[tuple[str, ...]]:
    return (
        ("status", "--porcelain=v2", "--branch", "-z", "--", *places),
        ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *places),
    )


def _repository(top: Path, inside: Mapping[Path, str]) -> dict[Path, Work]:
    places = tuple(inside.values())
    _surveyed[top, places] = None
    status, listed = (ask(question, top) for question in _questions(places))
    if listed is None:
        return {}
    files = [os.fsdecode(path) for path in dict.fromkeys(listed.split(b"\0")) if path]
    commit, changed = _state(status or b"")
    found = {}
    for folder, place in inside.items():
        prefix = "" if place == "." else f"{place}/"
        paths = tuple(path[len(prefix) :] for path in files if path.startswith(prefix))
        dirty = any(path.startswith(prefix) or (path.endswith("/") and prefix.startswith(path)) for path in changed)
        label = f"{commit}{' + changes' if dirty else ''}" if commit else "not committed yet"
        found[folder] = Work(paths, label)
    return found


def _state(said: bytes) -> tuple[str, list[str]]:
    """The commit ("" before the first) and the changed paths: git-status(1), "Porcelain Format Version 2"."""
    commit, changed = "", []
    words = iter(os.fsdecode(said).split("\0"))
    for word in words:
        if word.startswith("# branch.oid "):
            name = word.split()[2]
            commit = "" if name == "(initial)" else name[:7]
        elif word.startswith("2 "):
            changed += [word.split(" ", 9)[9], next(words)]  # renamed: from where is a field of its own
        elif word.startswith(("1 ", "u ")):
            changed.append(word.split(" ", 8 if word.startswith("1") else 10)[-1])
        elif word.startswith("? "):
            changed.append(word[2:])
    return commit, changed


def ask(arguments: Sequence[str], folder: Path) -> bytes | None:
    """What git says in a folder; None when it cannot say or is not there. Paths among the arguments are plain paths."""
    begun = _begun.pop((folder, tuple(arguments)), None) or _start(arguments, folder)
    if begun is None:
        return None
    said, _ = begun.communicate()
    return said if begun.returncode == 0 else None


def _start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes] | None:
    environment = {**os.environ, "GIT_LITERAL_PATHSPECS": "1"}
    try:
        return subprocess.Popen(
            ["git", *SAFE, *_unfiltered(folder), "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError:  # it is not installed
        return None


@functools.cache
def _unfiltered(folder: Path) -> tuple[str, ...]:
    """Options that switch off the filters which the configuration of the repository around `folder` defines.

    Those of the user's own configuration (git-lfs) stay. To ask git costs some milliseconds: only where the file has
    what could define one.
    """
    top = _top(folder)
    if top is None:
        return ()
    try:
        text = (top / ".git/config").read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        text = "include"  # it is elsewhere, as a linked work tree's is
    if not any(word in text for word in ("filter", "include", "worktreeconfig")):
        return ()
    words = ["config", "--includes", "--show-scope", "-z", "--name-only", "--get-regexp", r"^filter\."]
    try:
        done = subprocess.run(["git", *SAFE, "-C", str(folder), *words], capture_output=True, check=False)
    except OSError:
        return ()
    fields = os.fsdecode(done.stdout).split("\0")
    found: list[str] = []
    for scope, name in zip(fields[::2], fields[1::2], strict=False):
        if scope in ("local", "worktree") and (match := _FILTER.fullmatch(name)):
            off = ("clean=", "smudge=", "process=", "required=false")
            found += [word for each in off for word in ("-c", f"filter.{match[1]}.{each}")]
    return tuple(found)
