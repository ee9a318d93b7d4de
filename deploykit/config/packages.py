"""What decides an app's virtualenv: read out of its source, and summed up in the digest that names it."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

from deploykit.agent.values import Python
from deploykit.config import requirements
from deploykit.config.project import Installed
from deploykit.config.requirements import Files
from deploykit.errors import DeploykitError


class Mistake(DeploykitError):
    """A key of an app's table that does not fit its source; `allowed` is what would."""

    def __init__(self, key: str, what: str, allowed: str) -> None:
        super().__init__(what, key, allowed)
        self.key, self.allowed = key, allowed


#: A requirement by name and version, marker or not, and nothing else: no URL, no path, no hash, no option (PEP 508).
_PLAIN = re.compile(
    r"(?!.*--|.*\.(?:whl|zip|gz)$)[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*(?:[(<>=!~][^@;/]*)?(?:;[^@]*)?"
)
#: A folder or an archive of the source, perhaps editable, perhaps with extras.
_LOCAL = re.compile(
    r"(-e|--editable)?[\s=]*(\.{1,2}(?:/[^\s\[]*)?|[^\s:@\[]+\.(?:whl|tar\.gz|zip))(?:\[[^\]]*\])?(?=\s|$)"
)


def python(tree: Files, version: str, files: Sequence[str], more: Installed | None = None, root: str = "") -> Python:
    """The virtualenv's description. The digest covers all that decides its contents, not the layout of files.

    `more`: what is installed beside the files, or instead of them. Raises Mistake for what does not fit the source,
    DeploykitError for a file that is not there or asks for what is not in the source.
    """
    more = more or Installed()
    found = _Found(tree, root, more)
    if more.commands:
        # They may read any file of the source: each release has a virtualenv of its own.
        found.kind, found.parts = "commands", [("source", tree.digest.encode())]
        found.plain, found.tied = False, True
    elif files:
        _look(found, [posixpath.normpath(each) for each in files])
    elif more.packages:
        found.kind = "requirements"
    if found.kind in ("requirements", "none", "commands"):
        for key in ("extras", "groups"):
            if getattr(more, key):
                what = f"{key} are of pyproject.toml or of a lock file, and that is not what is installed"
                raise Mistake(key, what, 'with requirements = "pyproject.toml" or a lock file')
    if more.extras and found.kind == "pipenv":
        raise Mistake("extras", "a Pipfile has no extras", "its categories: groups")
    constraints = tuple(posixpath.normpath(each) for each in more.constraints)
    for each in constraints:
        found.follow(each, "", "constraints")
    for line in more.packages:
        found.local(line, "")
        found.plain = found.plain and _PLAIN.fullmatch(line) is not None
    found.plain = found.plain and not (more.index or more.extra_indexes)
    return Python(
        version,
        found.kind,
        found.files,
        found.digest(version, constraints),
        plain=found.plain,
        packages=more.packages,
        constraints=constraints,
        extras=more.extras,
        groups=more.groups,
        index=more.index,
        extra_indexes=more.extra_indexes,
        install=more.commands,
        local=found.builds,
        tied=found.tied,
    )


class _Found:
    """What is gathered while the files are read."""

    def __init__(self, tree: Files, root: str, more: Installed) -> None:
        self.tree, self.root, self.more = tree, root, more
        self.kind = "none"
        self.files: tuple[str, ...] = ()
        self.parts: list[tuple[str, bytes]] = []
        self.seen: dict[str, bytes] = {}  # requirements and constraints files, and packages inside the source
        self.plain = True
        self.builds = bool(more.commands)  # packages inside the source are built, or its own commands run in it
        self.tied = False  # it leads into the release's code, or is made from any of its files

    def digest(self, version: str, constraints: Sequence[str]) -> str:
        more = self.more
        asked = json.dumps(
            [
                *(more.packages, constraints, sorted(more.extras), sorted(more.groups)),
                *(more.index, more.extra_indexes, more.commands),
            ]
        )
        return _digest(self.kind, version, [*self.parts, *sorted(self.seen.items()), ("asked", asked.encode())])

    def follow(self, path: str, asked_by: str, key: str = "requirements") -> None:
        """Reads a requirements file and all that it includes."""
        if path in self.seen:
            return
        content = requirements.read(self.tree, path, asked_by, key)
        self.seen[path] = "\n".join(requirements.lines(content)).encode()  # a comment rebuilds nothing
        for line in requirements.lines(content):
            more = requirements.included(line, path)
            for each in more:
                self.follow(each, path, key)
            if not more:
                self.plain = self.plain and _PLAIN.fullmatch(line) is not None
                self.local(line, path)

    def local(self, line: str, path: str) -> None:
        """A package inside the source: its content decides the virtualenv as well. pip takes its path from the top."""
        match = _LOCAL.match(line)
        if match is None:
            return
        target = posixpath.normpath(match[2])
        if target == ".." or target.startswith("../"):
            todo = "put it into the source, or choose a `source` that has both"
            raise DeploykitError(f'"{line}" leads out of the source', path, todo)
        archive = target.endswith((".whl", ".gz", ".zip"))
        below = [each for each in self.tree.paths if target == "." or each == target or each.startswith(target + "/")]
        if not below:
            raise DeploykitError(f'"{line}": {target} is not in the source', path, "add it (is it ignored?)")
        self.plain = False
        self.builds = self.builds or not archive
        if match[1] or target == ".":
            self.whole()
        if target != ".":
            self.seen.update({each: self.tree.read(each) for each in below})
        self.tied = self.tied or bool(match[1])

    def whole(self) -> None:
        """Any file of the source may decide it."""
        if ("source", self.tree.digest.encode()) not in self.parts:
            self.parts.append(("source", self.tree.digest.encode()))

    def chosen(self, key: str, known: set[str], where: str) -> None:
        for each in getattr(self.more, key):
            if requirements.normal(each) not in {requirements.normal(name) for name in known}:
                have = ", ".join(sorted(known)) or "none"
                raise Mistake(key, f'{where} has no {key.removesuffix("s")} "{each}"', f"one of its {key}: {have}")


def _look(found: _Found, files: Sequence[str]) -> None:
    folder, name = posixpath.split(files[0])
    kinds = {lock: kind for lock, _, kind in requirements.LOCKS}
    if name in kinds:
        found.kind = kinds[name]
        {"uv": _uv, "poetry": _poetry, "pipenv": _pipenv}[found.kind](found, folder, files[0])
    elif name == "pyproject.toml":
        found.kind, found.files = "pyproject", (files[0],)
        _pyproject(found, files[0])
    else:
        found.kind, found.files = "requirements", tuple(files)
        for each in files:
            found.follow(each, "")


def _pyproject(found: _Found, path: str) -> None:
    """Its dependencies. What is dynamic, its build backend tells, which may read any file of the source."""
    document = requirements.pyproject(found.tree, path)
    project, tool = document.get("project", {}), document.get("tool", {})
    folder = posixpath.dirname(path)
    found.parts.append(("pyproject.toml", _dependencies(found.tree, path)))
    dynamic = {"dependencies", "optional-dependencies"} & set(project.get("dynamic", []))
    if dynamic or "project" not in document:
        found.builds, found.plain = True, False
        read = tool.get("setuptools", {}).get("dynamic", {})
        listed = [_listed(read.get(key, {})) for key in dynamic]
        if dynamic and all(listed) and posixpath.join(folder, "setup.py") not in found.tree.paths:
            found.parts.append(("setuptools", json.dumps(read, sort_keys=True).encode()))
            for each in (name for names in listed for name in names):
                found.follow(posixpath.normpath(posixpath.join(folder, each)), path)
        else:
            found.whole()
    _groups_of(found, document, path, dynamic)
    lines = [*project.get("dependencies", [])]
    for extra in found.more.extras:
        lines += [
            each
            for key, some in _extras(document).items()
            if requirements.normal(key) == requirements.normal(extra)
            for each in some
        ]
    if found.more.groups:  # they may include one another: all of them are looked at
        lines += [each for group in document.get("dependency-groups", {}).values() for each in group]
    found.plain = (
        found.plain and all(isinstance(each, dict) or _PLAIN.fullmatch(each) for each in lines) and "uv" not in tool
    )
    found.plain = not _uv_settings(found, folder) and found.plain


def _uv_settings(found: _Found, folder: str) -> bool:
    """Whether uv finds settings of its own from `folder` up: they decide where packages come from, and which.

    https://docs.astral.sh/uv/concepts/configuration-files/
    """
    before = len(found.parts)
    for each in (folder, *_above(folder)):
        alone, project = (posixpath.join(each, name) for name in ("uv.toml", "pyproject.toml"))
        if alone in found.tree.paths:
            found.parts.append((alone, found.tree.read(alone)))
        elif each != folder and project in found.tree.paths:
            table = requirements.pyproject(found.tree, project).get("tool", {}).get("uv")
            found.parts += [(project, json.dumps(table, sort_keys=True, default=str).encode())] if table else []
    return len(found.parts) > before


def _above(folder: str) -> Iterator[str]:
    while folder:
        folder = posixpath.dirname(folder)
        yield folder


def _listed(told: Any) -> list[str]:
    """The files of a `{ file = [...] }`, also one for each extra; [] when it is told otherwise."""
    if isinstance(told, dict) and "file" in told:
        return [told["file"]] if isinstance(told["file"], str) else list(told["file"])
    inner = [_listed(each) for each in told.values()] if isinstance(told, dict) else []
    return [each for some in inner for each in some] if all(inner) else []


def _groups_of(found: _Found, document: dict[str, Any], path: str, dynamic: set[str]) -> None:
    if "optional-dependencies" not in dynamic and "project" in document:
        found.chosen("extras", set(_extras(document)), path)
    found.chosen("groups", set(document.get("dependency-groups", {})), path)


def _extras(document: dict[str, Any]) -> dict[str, list[str]]:
    extras: dict[str, list[str]] = document.get("project", {}).get("optional-dependencies", {})
    return extras


def _uv(found: _Found, folder: str, lock: str) -> None:
    """uv.lock, of a project or of a workspace; then of the member that manage.py is in."""
    member = found.root if requirements.member(found.tree, found.root, folder) else folder
    beside = posixpath.join(member, "pyproject.toml")
    top = posixpath.join(folder, "pyproject.toml")
    content = requirements.read(found.tree, lock, "")
    found.files = (beside, lock)
    found.parts += [("uv.lock", content), ("pyproject.toml", _dependencies(found.tree, beside))]
    if member != folder:
        found.parts.append(("workspace", _dependencies(found.tree, top)))
    _uv_settings(found, member)
    document = requirements.pyproject(found.tree, beside)
    old = {"dev"} if "dev-dependencies" in document.get("tool", {}).get("uv", {}) else set()
    found.chosen("extras", set(_extras(document)), beside)
    found.chosen("groups", set(document.get("dependency-groups", {})) | old, beside)
    text = content.decode("utf-8", "replace")  # by pattern: parsing a long lock takes a tenth of a second
    for kind, place in re.findall(r'^source = \{ (editable|directory|path) = "([^"]*)"', text, re.MULTILINE):
        if posixpath.normpath(posixpath.join(folder, place)) != (member or "."):  # the project itself is not installed
            found.builds, found.plain = True, False
            found.tied = found.tied or kind == "editable"
            found.whole()


def _poetry(found: _Found, folder: str, lock: str) -> None:
    beside = posixpath.join(folder, "pyproject.toml")
    document = requirements.pyproject(found.tree, beside)
    poetry = document.get("tool", {}).get("poetry", {})
    content = requirements.read(found.tree, lock, "")
    found.files = (beside, lock)
    found.parts += [("poetry.lock", content), ("pyproject.toml", _dependencies(found.tree, beside))]
    found.chosen("extras", {*_extras(document), *poetry.get("extras", {})}, beside)
    old = {"dev"} if "dev-dependencies" in poetry else set()
    found.chosen("groups", {*document.get("dependency-groups", {}), *poetry.get("group", {}), *old}, beside)
    if re.search(rb'^type = "(?:directory|file)"$', content, re.MULTILINE):
        found.builds, found.plain, found.tied = True, False, True
        found.whole()


def _pipenv(found: _Found, folder: str, lock: str) -> None:
    content = requirements.read(found.tree, lock, "")
    found.files = (posixpath.join(folder, "Pipfile"), lock)
    found.parts += [("Pipfile.lock", content)]
    try:
        document = json.loads(content)
        packages = [each for name, some in document.items() if name != "_meta" for each in some.values()]
    except (ValueError, AttributeError):
        raise DeploykitError("is not what Pipenv writes", lock, "make it anew: pipenv lock") from None
    categories = {"dev" if name == "develop" else name for name in document} - {"_meta", "default"}
    found.chosen("groups", categories | {"dev-packages"}, lock)
    if any({"path", "file"} & each.keys() for each in packages if isinstance(each, dict)):
        found.builds, found.plain, found.tied = True, False, True
        found.whole()


def _dependencies(tree: Files, path: str) -> bytes:
    """What of pyproject.toml decides the virtualenv: so that editing ruff's table does not rebuild it."""
    document = requirements.pyproject(tree, path)
    project = document.get("project", {})
    tool = document.get("tool", {}).get("uv", {})
    poetry = document.get("tool", {}).get("poetry", {})
    kept = {
        "project": {key: project.get(key) for key in ("requires-python", "dependencies", "optional-dependencies")},
        "groups": document.get("dependency-groups"),
        "uv": {key: tool[key] for key in sorted(tool) if key not in ("package", "workspace", "cache-keys")},
        "poetry": {key: poetry[key] for key in sorted(poetry) if key in _POETRY},
    }
    return json.dumps(kept, sort_keys=True, default=str).encode()


_POETRY = ("dependencies", "dev-dependencies", "extras", "group", "source", "requires-poetry", "requires-plugins")


def _digest(kind: str, version: str, parts: Sequence[tuple[str, bytes]]) -> str:
    total = hashlib.sha256(f"{kind}\0{version}\0".encode())
    for name, content in parts:
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()
