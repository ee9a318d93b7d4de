"""Where a source says what to install, and what that is by name. What of it decides a virtualenv is `packages`."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from deploykit.config.toml import parse
from deploykit.errors import DeploykitError


class Files(Protocol):
    """The part of a source tree that is needed here (see `detect.Tree`)."""

    @property
    def paths(self) -> Sequence[str]: ...
    @property
    def digest(self) -> str: ...
    def read(self, path: str) -> bytes: ...


FILES = ("requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt")
#: Lock files, the file beside each that says what was locked, and what each is called in `values.Python.kind`.
LOCKS = (
    ("uv.lock", "pyproject.toml", "uv"),
    ("poetry.lock", "pyproject.toml", "poetry"),
    ("Pipfile.lock", "Pipfile", "pipenv"),
)

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?=[^\s-]))(\S+)")


def find(tree: Files, root: str) -> tuple[str, ...]:
    """The files that say what to install, relative to the source: beside manage.py first, then at the top.

    A lock file wins over a list, a list over pyproject.toml, whose versions are loose. () when there is none.
    """
    paths = set(tree.paths)
    for folder in dict.fromkeys((root, "")):
        for lock, beside, _ in LOCKS:
            if {posixpath.join(folder, lock), posixpath.join(folder, beside)} <= paths:
                return (posixpath.join(folder, lock),)
        name = posixpath.join(folder, "pyproject.toml")
        if folder and member(tree, folder):
            return ("uv.lock",)
        for each in FILES:
            if posixpath.join(folder, each) in paths:
                return (posixpath.join(folder, each),)
        if name in paths and _depends(pyproject(tree, name)):
            return (name,)
    return ()


def _depends(document: dict[str, Any]) -> bool:
    project = document.get("project", {})
    told = "dependencies" in project or "dependencies" in project.get("dynamic", [])
    return told or "dependencies" in document.get("tool", {}).get("poetry", {})


def member(tree: Files, folder: str, top: str = "") -> bool:
    """Whether a folder is in a uv workspace whose lock is in `top`."""
    paths = {posixpath.join(top, "uv.lock"), posixpath.join(top, "pyproject.toml")}
    if folder == top or not {*paths, posixpath.join(folder, "pyproject.toml")} <= set(tree.paths):
        return False
    return "workspace" in pyproject(tree, posixpath.join(top, "pyproject.toml")).get("tool", {}).get("uv", {})


def names(tree: Files, files: Sequence[str]) -> frozenset[str]:
    """The normalised names of the packages asked for, extras among them ("celery[redis]": "celery", "redis")."""
    found: list[str] = []
    for file in files:
        base = posixpath.basename(file)
        if base in ("uv.lock", "poetry.lock"):
            packages = parse(read(tree, file, "").decode("utf-8", "replace"), file).get("package", [])
            found += [str(package.get("name", "")) for package in packages if isinstance(package, dict)]
        elif base == "Pipfile.lock":
            with contextlib.suppress(ValueError, AttributeError):
                found += json.loads(read(tree, file, "")).get("default", {})
        elif base == "pyproject.toml":
            found += [str(each) for each in pyproject(tree, file).get("project", {}).get("dependencies", [])]
        else:
            found += _followed(tree, posixpath.normpath(file), set())
    called: set[str] = set()
    for line in found:
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?", line)
        if match:
            called |= {normal(each) for each in (match[1], *(match[2] or "").split(",")) if each.strip()}
    return frozenset(called)


def _followed(tree: Files, path: str, seen: set[str]) -> Iterator[str]:
    if path not in seen:
        seen.add(path)
        for line in lines(read(tree, path, "")):
            yield line
            yield from (each for to in included(line, path) for each in _followed(tree, to, seen))


def included(line: str, path: str) -> list[str]:
    """The file that a line of the requirements file at `path` includes, if it does and is no URL."""
    found = _INCLUDE.match(line)
    return (
        [posixpath.normpath(posixpath.join(posixpath.dirname(path), found[1]))]
        if found and "://" not in found[1]
        else []
    )


def pyproject(tree: Files, path: str) -> dict[str, Any]:
    """The parsed pyproject.toml. Raises ConfigError when it is not TOML."""
    return parse(read(tree, path, "").decode("utf-8", "replace"), path)


def normal(name: str) -> str:
    """A package's, extra's or group's name as all its spellings have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def read(tree: Files, path: str, asked_by: str, key: str = "requirements") -> bytes:
    """A file's content. Raises DeploykitError when it is not in the source: `key` of the table names another."""
    try:
        return tree.read(path)
    except KeyError:
        by = f", which {asked_by} includes" if asked_by else ""
        todo = f"add the file (is it ignored by git or by `exclude`?), or name another with `{key}`"
        raise DeploykitError(f"{path}{by} is not in the source", "", todo) from None


def lines(content: bytes) -> Iterator[str]:
    """Requirement lines: continued lines joined, comments and blanks left out."""
    text = content.decode("utf-8-sig", "replace")
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            yield line
