"""Apps come into deploykit.toml and leave it: what was found in their source becomes text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploykit import companions, detect, draft, edit, source
from deploykit.config import Project, Source, loads
from deploykit.config.rules import git_url
from deploykit.errors import DeploykitError


def add(project: Project, name: str, where: str, domains: Sequence[str], ref: str = "") -> Iterator[str]:
    """Writes the table of an app into deploykit.toml, and yields what was found, in words."""
    if git_url(where):
        tree = source.read(Source(git=where, ref=ref), (), name)
        text = where
    else:
        folder = Path(where).expanduser()
        tree = source.read(Source(folder=folder.absolute()), (), name)
        text = Path(os.path.relpath(folder.absolute(), project.folder)).as_posix()
    found = detect.detect(tree, name=name)
    made = draft.app_table(name, text, domains, found, companions.find(tree, found))
    values = dict(made.values)
    if ref:
        values["source"] = {"git": where, "ref": ref}
    with open(project.file, encoding="utf-8", newline="") as file:
        before = file.read()
    after = edit.add_app(before, name, values, made.questions, made.comments)
    loads(after, project.file)  # a mistake (a domain that is taken) is told before anything is written
    _write(project.file, after)
    yield f"added [apps.{name}] to {project.file.name}"
    what = "manage.py" if f"{found.root}/manage.py".lstrip("/") in tree.paths else "no manage.py; all runs"
    yield f"  {what} in {found.root or '.'}, settings {found.settings or 'not found'}"
    for kind in ("processes", "services"):
        for each in values.get(kind, {}):
            yield f"  {kind}: {each}"
    for question in made.questions:
        yield f"  open: {question}"
    if found.settings and not any("HOSTS" in name for name in found.env):
        names = ", ".join(domains)
        yield f"  note: the settings do not read ALLOWED_HOSTS from the environment; it must contain {names}"


def remove(project: Project, name: str) -> None:
    """Takes the app's table out of deploykit.toml."""
    with open(project.file, encoding="utf-8", newline="") as file:
        before = file.read()
    _write(project.file, edit.remove_app(before, name))


def _write(file: Path, text: str) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(fresh, "w", encoding="utf-8", newline="") as handle:
            handle.write(text)
        os.chmod(fresh, file.stat().st_mode)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise DeploykitError(f"cannot be written: {error.strerror}", str(file)) from None
