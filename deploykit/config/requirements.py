"""What an app installs: found in its source, and summed up in the digest that names its virtualenv."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from deploykit.agent.values import Python
from deploykit.config.toml import parse
from deploykit.errors import DeploykitError


class Files(Protocol):
    """The part of a source tree that is needed here (see `detect.Tree`)."""

    @property
    def paths(self) -> Sequence[str]: ...
    def read(self, path: str) -> bytes: ...


FILES = ("requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt")

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?=[^\s-]))(\S+)")
#: A requirement by name and version, marker or not, and nothing else: no URL, no path, no hash, no option (PEP 508).
_PLAIN = re.compile(
    r"(?!.*--|.*\.(?:whl|zip|gz)$)[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*(?:[(<>=!~][^@;/]*)?(?:;[^@]*)?"
)


def find(tree: Files, root: str) -> tuple[str, ...]:
    """The files that say what to install, relative to the source: beside manage.py first, then at the top.

    A lock file wins over a list, a list over pyproject.toml, whose versions are loose. () when there is none.
    """
    paths = set(tree.paths)
    for folder in dict.fromkeys((root, "")):
        if {posixpath.join(folder, "uv.lock"), posixpath.join(folder, "pyproject.toml")} <= paths:
            return (posixpath.join(folder, "uv.lock"),)
        for name in FILES:
            if posixpath.join(folder, name) in paths:
                return (posixpath.join(folder, name),)
        name = posixpath.join(folder, "pyproject.toml")
        if name in paths and "dependencies" in pyproject(tree, name).get("project", {}):
            return (name,)
    return ()


def python(tree: Files, version: str, files: Sequence[str]) -> Python:
    """The virtualenv's description. The digest covers kind, version and what the files ask for, not their layout.

    Raises DeploykitError for a file that is not there or asks for what a virtualenv between releases cannot have.
    """
    if not files:
        return Python(version, "none", (), _digest("none", version, ()), plain=True)
    first = posixpath.normpath(files[0])
    folder, name = posixpath.split(first)
    if name == "uv.lock":
        beside = posixpath.join(folder, "pyproject.toml")
        parts = ((name, _read(tree, first, "")), ("pyproject.toml", _dependencies(tree, beside)))
        return Python(version, "uv", (beside, first), _digest("uv", version, parts), plain=True)
    if name == "pyproject.toml":
        document = pyproject(tree, first)
        lines = document.get("project", {}).get("dependencies", [])
        plain = all(map(_PLAIN.fullmatch, lines)) and "uv" not in document.get("tool", {})
        digest = _digest("pyproject", version, ((name, _dependencies(tree, first)),))
        return Python(version, "pyproject", (first,), digest, plain=plain)
    wanted = tuple(posixpath.normpath(each) for each in files)
    seen: dict[str, bytes] = {}
    for each in wanted:
        _follow(tree, each, "", seen)
    plain = all(_plain(line) for each in seen.values() for line in _lines(each))
    return Python(version, "requirements", wanted, _digest("requirements", version, sorted(seen.items())), plain=plain)


def names(tree: Files, files: Sequence[str]) -> frozenset[str]:
    """The normalised names of the packages asked for, extras among them ("celery[redis]": "celery", "redis")."""
    lines: list[str] = []
    for file in files:
        base = posixpath.basename(file)
        if base == "uv.lock":
            packages = parse(_read(tree, file, "").decode("utf-8", "replace"), file).get("package", [])
            lines += [str(package.get("name", "")) for package in packages if isinstance(package, dict)]
        elif base == "pyproject.toml":
            lines += [str(each) for each in pyproject(tree, file).get("project", {}).get("dependencies", [])]
        else:
            seen: dict[str, bytes] = {}
            _follow(tree, posixpath.normpath(file), "", seen)
            lines += [line for content in seen.values() for line in _lines(content)]
    found: set[str] = set()
    for line in lines:
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?", line)
        if match:
            found |= {_normal(each) for each in (match[1], *(match[2] or "").split(",")) if each.strip()}
    return frozenset(found)


def pyproject(tree: Files, path: str) -> dict[str, Any]:
    """The parsed pyproject.toml. Raises ConfigError when it is not TOML."""
    return parse(_read(tree, path, "").decode("utf-8", "replace"), path)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _dependencies(tree: Files, path: str) -> bytes:
    """What of pyproject.toml decides the virtualenv: so that editing ruff's table does not rebuild it."""
    document = pyproject(tree, path)
    project = document.get("project", {})
    if "dependencies" in project.get("dynamic", []):
        todo = 'list them in [project] dependencies, or set requirements = "requirements.txt" in deploykit.toml'
        raise DeploykitError("its dependencies are dynamic: only a build could tell them", path, todo)
    tool = document.get("tool", {}).get("uv", {})
    kept = {
        "project": {key: project.get(key) for key in ("requires-python", "dependencies", "optional-dependencies")},
        "groups": document.get("dependency-groups"),
        "uv": {key: tool[key] for key in sorted(tool) if key not in ("package", "workspace", "cache-keys")},
    }
    return json.dumps(kept, sort_keys=True, default=str).encode()


def _read(tree: Files, path: str, asked_by: str) -> bytes:
    try:
        return tree.read(path)
    except KeyError:
        by = f", which {asked_by} includes" if asked_by else ""
        todo = "add the file (is it ignored by git or by `exclude`?), or name another with `requirements`"
        raise DeploykitError(f"{path}{by} is not in the source", "", todo) from None


def _lines(content: bytes) -> Iterator[str]:
    """Requirement lines: continued lines joined, comments and blanks left out."""
    text = content.decode("utf-8-sig", "replace")
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            yield line


def _follow(tree: Files, path: str, asked_by: str, seen: dict[str, bytes]) -> None:
    if path in seen:
        return
    content = _read(tree, path, asked_by)
    seen[path] = "\n".join(_lines(content)).encode()  # a comment rebuilds nothing
    folder = posixpath.dirname(path)
    for line in _lines(content):
        include = _INCLUDE.match(line)
        if include and "://" not in include[1]:
            _follow(tree, posixpath.normpath(posixpath.join(folder, include[1])), path, seen)
            continue
        local = re.match(
            r"(-e|--editable)?[\s=]*(\.{1,2}(?:/\S*)?|[^\s:@]+\.(?:whl|tar\.gz|zip))(?:\[[^\]]*\])?(?=\s|$)",
            line,
        )
        if local:
            _local(tree, path, line, posixpath.normpath(local[2]), bool(local[1]), seen)


def _local(tree: Files, path: str, line: str, target: str, editable: bool, seen: dict[str, bytes]) -> None:
    """A package inside the source: its content decides the virtualenv as well. pip takes its path from the top."""
    if editable or target == "." or target.startswith("../"):
        todo = "remove the line: the folder of manage.py is on Python's path already"
        what = f'"{line}" installs the source itself, and the virtualenv is kept over releases'
        raise DeploykitError(what, path, todo)
    for each in tree.paths:
        if each == target or each.startswith(target + "/"):
            seen[each] = tree.read(each)


def _plain(line: str) -> bool:
    include = _INCLUDE.match(line)
    return "://" not in include[1] if include else _PLAIN.fullmatch(line) is not None


def _digest(kind: str, version: str, parts: Sequence[tuple[str, bytes]]) -> str:
    total = hashlib.sha256(f"{kind}\0{version}\0".encode())
    for name, content in parts:
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def fits(wanted: str, version: str) -> bool:
    """Whether a Python version satisfies a `requires-python`; "3.11" is any 3.11.x."""
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    tries = [numbers] if len(numbers) == 3 else [[*numbers, patch] for patch in range(60)]
    clauses = [part.strip() for part in wanted.split(",") if part.strip()]
    return any(all(_clause(clause, each) for clause in clauses) for each in tries)


def _clause(clause: str, version: list[int]) -> bool:
    found = re.fullmatch(r"(~=|===?|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?[^,]*", clause)
    if found is None:
        return True  # nothing that is understood: the installer will say so
    sign, bound = found[1], [int(part) for part in found[2].split(".")]
    if found[3] or sign == "~=":
        same = version[: len(bound) - (sign == "~=")] == bound[: len(bound) - (sign == "~=")]
        full = [*bound, 0, 0, 0][:3]
        return same and version >= full if sign == "~=" else same if sign in ("==", "===") else not same
    full = [*bound, 0, 0, 0][:3]
    return {
        "==": version == full, "===": version == full, "!=": version != full,
        "<": version < full, "<=": version <= full, ">": version > full, ">=": version >= full,
    }[sign]  # fmt: skip
