"""Which Python a project wants: what it requires, and what it merely hints at."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Sequence
from typing import Any, Protocol

from deploykit.config.toml import parse


class Files(Protocol):
    """The part of a source tree that is needed here (see `detect.Tree`)."""

    @property
    def paths(self) -> Sequence[str]: ...
    def read(self, path: str) -> bytes: ...


def required(tree: Files, folders: Sequence[str]) -> str:
    """What the first pyproject.toml in `folders` requires, as in PEP 440: ">=3.11"; "" when it says nothing.

    Raises ConfigError when it is not TOML.
    """
    files = set(tree.paths)
    for folder in dict.fromkeys(folders):
        path = posixpath.join(folder, "pyproject.toml")
        if path in files:
            document = parse(tree.read(path).decode("utf-8", "replace"), path)
            standard = document.get("project", {}).get("requires-python", "")
            return str(standard) or _poetry(document.get("tool", {}).get("poetry", {}))
    return ""


def _poetry(table: dict[str, Any]) -> str:
    """Poetry's own `python = "^3.11"`: https://python-poetry.org/docs/dependency-specification/"""
    spec = table.get("dependencies", {}).get("python", "")
    if not isinstance(spec, str) or "|" in spec:
        return ""  # one of several: what is understood here must all hold
    found = []
    for clause in re.split(r"\s*,\s*|\s+(?=[<>=!~^])", spec.strip()):
        sign, numbers = re.sub(r"[\d.*\s]+$", "", clause), re.findall(r"\d+", clause)
        if not numbers:
            continue
        if sign == "^":
            found += [f">={'.'.join(numbers)}", f"<{int(numbers[0]) + 1}"]
        elif sign == "~":
            above = [*numbers[:1], str(int(numbers[1]) + 1)] if len(numbers) > 1 else [str(int(numbers[0]) + 1)]
            found += [f">={'.'.join(numbers)}", f"<{'.'.join(above)}"]
        else:
            found.append(clause if sign else f"=={clause}")
    return ",".join(found)


def hinted(tree: Files, folders: Sequence[str]) -> tuple[str, str]:
    """(the file, the version) by which pyenv, uv, Heroku or Pipenv choose a Python: no requirement. "" is none."""
    files = set(tree.paths)
    for folder in dict.fromkeys(folders):
        for name in (".python-version", "runtime.txt"):
            path = posixpath.join(folder, name)
            if path in files:
                for line in tree.read(path).decode("utf-8", "replace").splitlines():
                    found = re.match(r"\s*(?:cpython@?|python)?-?(3\.\d+(?:\.\d+)?)", line)
                    if found:
                        return path, found[1]
        path = posixpath.join(folder, "Pipfile.lock")
        with contextlib.suppress(KeyError, ValueError, TypeError):
            wanted = json.loads(tree.read(path))["_meta"]["requires"]["python_version"] if path in files else ""
            if re.fullmatch(r"3\.\d+", wanted):
                return path, wanted
    return "", ""


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
