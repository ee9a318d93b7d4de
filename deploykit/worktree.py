"""What git knows of folders: their files and their state. It is asked once for each repository, not for each app."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploykit.agent.dataclass import dataclass


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
    found: dict[Path, Work] = {}
    if tops:
        with ThreadPoolExecutor(max_workers=4) as pool:  # waiting for git
            for each in pool.map(lambda item: _repository(*item), tops.items()):
                found.update(each)
    return found


def _top(folder: Path) -> Path | None:
    real = folder.resolve()
    return next((place for place in (real, *real.parents) if (place / ".git").exists()), None)


def _repository(top: Path, folders: Sequence[Path]) -> dict[Path, Work]:
    inside = {folder: os.path.relpath(folder.resolve(), top) for folder in folders}
    specs = ["--", *inside.values()]
    with ThreadPoolExecutor(max_workers=2) as pool:
        status = pool.submit(ask, ["status", "--porcelain=v2", "--branch", "-z", *specs], top)
        listed = ask(["ls-files", "-z", "--cached", "--others", "--exclude-standard", *specs], top)
    if listed is None:
        return {}
    files = [os.fsdecode(path) for path in dict.fromkeys(listed.split(b"\0")) if path]
    commit, changed = _state(status.result() or b"")
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
    environment = {**os.environ, "GIT_LITERAL_PATHSPECS": "1"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=False, env=environment
        )  # fmt: skip
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
