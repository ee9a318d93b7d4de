"""Manifests as they are sent, remembered: equal hosts make equal manifests, so most commands need not make one again.

Making one is pure (`manifest.build`): the host's configuration, its facts, the templates and deploykit's own code
decide it. All of these are in the name under which it is kept, in the user's cache. Two things are never kept: what
holds a secret in the clear, and what a project's own recipes have made, since they may look at whatever they like.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit import cache, catalogue
from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Note
from deploykit.agent.secret import Secret
from deploykit.agent.values import Facts, Host

if TYPE_CHECKING:
    from deploykit.detect import Detected

PACKAGE = Path(__file__).parent
_KEPT = 30 * 86_400  # seconds
_MOST = 100  # of them, whatever their age: thirty apps' is 350 KB


@dataclass(frozen=True)
class Made:
    """A manifest as text, and what is to be said of it: `notes` to everybody, `asides` to who wants to know all."""

    text: str  # JSON: `{"resources": ..., "deployments": ...}`, secrets in the clear
    notes: tuple[Note, ...] = ()
    asides: tuple[Note, ...] = ()

    @property
    def digest(self) -> str:
        """Names the manifest, secrets included, so that a second deploy of the same can be told from another."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class _InTheClear(Exception):
    """There is a secret in it."""


def make(host: Host, facts: Facts, project: Path, agent: str, detected: Mapping[str, Detected]) -> Made:
    """The manifest of a host, with its notes. `agent` names the code that travels: `bundle.Bundle.sha`.

    Raises what `manifest.build` raises; that is not remembered.
    """
    place = _place(host, facts, project, agent)
    if place is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one is made anew
            return _read(place)
    from deploykit import unset
    from deploykit.manifest import build

    manifest = build(host, facts, project)
    warnings, asides = unset.notes(manifest.deployments, detected)
    made = Made(manifest.text, (*manifest.notes, *warnings), tuple(asides))
    if place is not None:
        with contextlib.suppress(OSError):  # a full or read-only home only makes it slower
            _prune(place.parent)
            _keep(place, made)
    return made


def _place(host: Host, facts: Facts, project: Path, agent: str) -> Path | None:
    """Where the manifest of just these is kept; None when it is not to be."""
    if catalogue.project_recipes(project) is not None or host.recipes:
        return None
    folder = cache.private("manifests")
    if folder is None:
        return None
    try:
        parts = [host, asdict(facts), agent, sys.version, list(_code()), list(_files(project / "templates"))]
        name = json.dumps(parts, default=_plain)
    except (_InTheClear, OSError, TypeError):
        return None
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, Secret):
        raise _InTheClear
    return {type(value).__qualname__: vars(value)}


def _code() -> Iterator[Sequence[object]]:
    """What tells the code that makes manifests here from another version of it; what travels has a name of its own."""
    yield from _files(PACKAGE / "templates")
    for module in ("catalogue", "made", "manifest", "rendering", "unset", "detect"):
        yield _mark(PACKAGE / f"{module}.py")
    jinja2 = find_spec("jinja2")  # without loading it
    assert jinja2 is not None and jinja2.origin is not None
    yield _mark(Path(jinja2.origin))


def _files(folder: Path) -> Iterator[Sequence[object]]:
    """Every file below a folder, by what changes with its content. Raises OSError for a link to a folder."""
    for top, folders, files in os.walk(folder):
        folders.sort()
        if any(os.path.islink(os.path.join(top, each)) for each in folders):
            raise OSError("a link to a folder would not be followed")
        for name in sorted(files):
            yield _mark(Path(top, name))


def _mark(place: Path) -> Sequence[object]:
    status = place.stat()
    return (str(place), status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _keep(place: Path, made: Made) -> None:
    notes = [[[each.text, each.warning] for each in notes] for notes in (made.notes, made.asides)]
    cache.keep(place, json.dumps({"sha": made.digest, "notes": notes}) + "\n" + made.text)


def _read(place: Path) -> Made:
    head, _, text = place.read_text().partition("\n")
    said = json.loads(head)
    notes, asides = (tuple(Note(str(each[0]), bool(each[1])) for each in notes) for notes in said["notes"])
    made = Made(text, notes, asides)
    if made.digest != said["sha"]:
        raise ValueError("damaged")
    return made


def _prune(folder: Path) -> None:
    """Those that no command has asked for in a while go."""
    ages = sorted((each.stat().st_mtime, each) for each in folder.iterdir())
    for number, (at, each) in enumerate(ages):
        if time.time() - at > _KEPT or number < len(ages) - _MOST:
            each.unlink(missing_ok=True)
