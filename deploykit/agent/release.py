"""Making a release: its code, what is compiled of it, what of it persists. Nothing here is live yet."""

from __future__ import annotations

import grp
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from deploykit.agent import paths, virtualenv
from deploykit.agent.deployment import Deployment, condition
from deploykit.agent.process import run
from deploykit.agent.resource import Failed

#: A tree: (path, mode, size, sha256) of each file, sorted by path. A link has mode 0o120777 and its target as content.
Listing = list[tuple[str, int, int, str]]

_MANY = 300  # files from which on it pays to compile them by two processes


def missing(deployment: Deployment, listing: Listing) -> list[str]:
    """The SHA-256 of each file that no release on the host has, in the listing's order, without repeats."""
    have = _contents(deployment)
    return list(dict.fromkeys(sha for _, _, _, sha in listing if sha not in have))


def _contents(deployment: Deployment) -> dict[str, Path]:
    """Where each content is found in the releases that are there, if it still is as it was written."""
    found: dict[str, Path] = {}
    for folder in (deployment.home / "releases").glob("*"):
        kept = _sealed(folder)
        if kept is None:
            continue
        shas = dict(kept["contents"])
        for path, size, changed in kept["seals"]:
            place = folder / "code" / path
            try:
                status = os.lstat(place)
            except OSError:
                continue
            if (status.st_size, status.st_mtime_ns) == (size, changed) and stat.S_ISREG(status.st_mode):
                found[shas[path]] = place
    return found


def _sealed(folder: Path) -> dict[str, Any] | None:
    try:
        kept: dict[str, Any] | None = paths.read_json(folder / "release.json", None)
    except (ValueError, NotADirectoryError):
        return None
    return kept


def complete(deployment: Deployment) -> bool:
    """Whether the release is there, whole and unaltered."""
    return condition(deployment.app, deployment.release) == "as released"


def lay(deployment: Deployment, listing: Listing, received: Path) -> Path:
    """Lays the code into a new folder beside the release's place and returns it; files that did not change are linked.

    `received` holds the files that were sent, each named by its SHA-256. Root owns, the app's group reads.
    """
    partial = deployment.folder.with_name(f"{deployment.release}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o711)
    (partial / "venv").symlink_to(deployment.virtualenv)  # for people: /srv/<app>/live/venv/bin/python manage.py ...
    code = partial / "code"
    code.mkdir(mode=0o750)
    group = grp.getgrnam(deployment.app).gr_gid
    os.chown(code, 0, group)
    made = {code}
    have = _contents(deployment)
    for path, mode, _, sha in listing:
        place = code / path
        _folders(place.parent, made, group)
        if stat.S_ISLNK(mode):
            sent = received / sha
            target = (sent if sent.exists() else have[sha]).read_text()
            if not (place.parent / target).resolve().is_relative_to(code.resolve()):
                raise Failed(f"{path} is a link that leads out of the source", target, "leave it out with `exclude`")
            place.symlink_to(target)
            continue
        sent = received / sha
        rights = 0o750 if mode & 0o111 else 0o640
        kept = have.get(sha)
        if not sent.exists() and kept is not None and stat.S_IMODE(kept.stat().st_mode) == rights:
            os.link(kept, place)
            _link_compiled(kept, place, made, group)
            continue
        shutil.copyfile(sent if sent.exists() else have[sha], place)
        place.chmod(rights)
        os.chown(place, 0, group)
    return partial


def _link_compiled(kept: Path, place: Path, made: set[Path], group: int) -> None:
    """What root compiled of a file that did not change (same time, same size) need not be compiled again."""
    if kept.suffix != ".py":
        return
    for compiled in (kept.parent / "__pycache__").glob(f"{kept.stem}.cpython-*.pyc"):
        if compiled.lstat().st_uid == 0:
            _folders(place.parent / "__pycache__", made, group)
            os.link(compiled, place.parent / "__pycache__" / compiled.name)


def _folders(folder: Path, made: set[Path], group: int) -> None:
    if folder in made:
        return
    _folders(folder.parent, made, group)
    folder.mkdir(mode=0o750)
    os.chown(folder, 0, group)
    made.add(folder)


def seal(deployment: Deployment, listing: Listing) -> None:
    """Notes how every file of the release looks, so that an altered one is seen, and that the release is whole."""
    top = deployment.folder / "code"
    seals = []
    for path, mode, _, _ in listing:
        if stat.S_ISLNK(mode):
            continue
        try:
            status = os.lstat(top / path)
        except OSError:
            continue  # replaced by a link to what persists
        if stat.S_ISREG(status.st_mode):
            seals.append((path, status.st_size, status.st_mtime_ns))
    static = deployment.folder / "static"
    served = [(str(path.relative_to(static)), path.lstat()) for path in sorted(static.rglob("*")) if path.is_file()]
    paths.write(
        deployment.folder / "release.json",
        json.dumps(
            {
                "release": deployment.release,
                "label": deployment.label,
                "venv": deployment.venv.key,
                "made": time.time(),
                "seals": seals,
                "static": [(path, status.st_size, status.st_mtime_ns) for path, status in served],
                "contents": [(path, sha) for path, _, _, sha in listing],
            }
        ),
    )


def compile_all(deployment: Deployment, files: int) -> None:
    """Compiles the code, as root, since the app may not write there. `files`: how many there are.

    Never by the virtualenv's own python: what the app's requirements put there (a .pth file, even another bin/python)
    would run as root. A file that is no Python is no error.
    """
    code = str(deployment.folder / "code")
    python = virtualenv.trusted(deployment.virtualenv)
    if python is not None:
        side_by_side = ("-j", "2") if files > _MANY else ()
        run([python, "-I", "-S", "-m", "compileall", "-q", *side_by_side, code], check=False)
    run(["chown", "-R", "-h", f"root:{deployment.app}", code])


def persist(deployment: Deployment, settings: dict[str, str]) -> None:
    """Where a project writes inside its own folder, a link leads to the place that outlives the release."""
    home = deployment.home
    _redirect(deployment, settings["STATIC_ROOT"], deployment.folder / "static")
    _redirect(deployment, settings["MEDIA_ROOT"], home / "media")
    if settings["sqlite"] and settings["sqlite"] != ":memory:":
        place = Path(os.path.normpath(settings["sqlite"]))
        if _inside(deployment, place) and not place.is_symlink():
            place.unlink(missing_ok=True)
            place.symlink_to(home / "data" / place.name)


def _inside(deployment: Deployment, place: Path) -> bool:
    return place.is_absolute() and place.is_relative_to(deployment.folder / "code")


def _redirect(deployment: Deployment, setting: str, lasting: Path) -> None:
    # What the app's own code says: "../" must not lead root elsewhere.
    place = Path(os.path.normpath(setting)) if setting else None
    if place is None or not _inside(deployment, place) or place == deployment.folder / "code":
        return
    if place.is_dir() and not place.is_symlink():
        # As the app: it owns the place, and could have put links there that lead root astray. cp of coreutils 9.2 to
        # 9.4 calls it a failure that a file is there already.
        run(["cp", "-r", "-n", f"{place}/.", str(lasting)], user=deployment.app, check=False)
        shutil.rmtree(place)
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(lasting)
