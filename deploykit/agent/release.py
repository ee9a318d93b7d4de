"""Making a release: its code, what is compiled of it, what of it persists. Nothing here is live yet."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from deploykit.agent import app_command, links, paths, trees, virtualenv
from deploykit.agent.deployment import Deployment, condition
from deploykit.agent.process import TimedOut, run
from deploykit.agent.resource import Failed

#: A tree: (path, mode, size, sha256) of each file, sorted by path. A link has mode 0o120777 and its target as content.
Listing = list[tuple[str, int, int, str]]

#: How the files looked before anything was built: gone once the release is sealed.
_LAID = "laid.json"

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
            # What a build has made or altered is no content of the source's.
            as_it_was = (status.st_size, status.st_mtime_ns) == (size, changed) and stat.S_ISREG(status.st_mode)
            if as_it_was and path in shas:
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

    `received` holds the files that were sent, each named by its SHA-256. Root owns, the app's group reads; but where
    the app's own commands build in it, it is the app's until it is sealed, and shares no file with another release.
    """
    partial = deployment.folder.with_name(f"{deployment.release}.partial")
    trees.remove(partial)
    partial.mkdir(mode=0o711)
    (partial / "venv").symlink_to(deployment.virtualenv)  # for people: /srv/<app>/live/venv/bin/python manage.py ...
    code = partial / "code"
    code.mkdir(mode=0o750)
    account = pwd.getpwnam(deployment.app)
    group = account.pw_gid
    os.chown(code, 0, group)
    made = {code}
    have = _contents(deployment)
    for path, mode, _, sha in listing:
        place = code / path
        _folders(place.parent, made, group)
        if stat.S_ISLNK(mode):
            sent = received / sha
            target = os.fsdecode((sent if sent.exists() else have[sha]).read_bytes())
            if not _real(place.parent / target).is_relative_to(_real(code)):
                raise Failed(f"{path} is a link that leads out of the source", target, "leave it out with `exclude`")
            place.symlink_to(target)
            continue
        sent = received / sha
        rights = 0o750 if mode & 0o111 else 0o640
        kept = have.get(sha)
        alike = kept is not None and stat.S_IMODE(kept.stat().st_mode) == rights
        if kept is not None and alike and not sent.exists() and not deployment.builds:
            os.link(kept, place)
            _link_compiled(kept, place, made, group)
            continue
        shutil.copyfile(sent if sent.exists() else have[sha], place)
        place.chmod(rights)
        os.chown(place, 0, group)
    for path in deployment.build.persist:
        _keep(deployment, code, path, made, group)
    for path, name in deployment.links:
        links.room(code, path, name, deployment.app)
        _folders((code / path).parent, made, group)
        (code / path).symlink_to(links.target(path, name))
    if deployment.builds:
        trees.give(code, account.pw_uid, group)
        laid = [(path, *_seen(code / path)) for path, mode, _, _ in listing if not stat.S_ISLNK(mode)]
        paths.write_json(partial / _LAID, laid)
    return partial


def _seen(place: Path) -> tuple[int, int, int, int]:
    """What tells whether a file was written to: the time of its last change (ctime) is nobody's to set."""
    try:
        status = os.lstat(place)
    except OSError:
        return 0, 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


#: $1 is the first content of $2.
_FIRST_FOLDER = '[ -n "$(ls -A -- "$2")" ] || cp -R --no-dereference -- "$1/." "$2"'
_FIRST_FILE = '[ -e "$2" ] || [ -L "$2" ] || cp --no-dereference --no-clobber -- "$1" "$2"'


def _keep(deployment: Deployment, code: Path, path: str, made: set[Path], group: int) -> None:
    """Puts a link to what persists where the code has, or would have, a folder (its path ends with "/") or a file.

    What git has there is the first content of it, copied as the app, whose place it is: it may have put links there.
    """
    place, lasting = code / path.rstrip("/"), deployment.home / "persist" / path.rstrip("/")
    folder = path.endswith("/")
    if place.is_symlink() or _real(place.parent) != _real(code) / os.path.dirname(path.rstrip("/")):
        raise Failed(
            f"{path} cannot persist: it is a link in the source, or below one",
            todo=f"persist what it leads to, or leave it out with `exclude` in [apps.{deployment.app}]",
        )
    if place.exists():
        if place.is_dir() != folder:
            is_, right = ("folder", f"{path}/") if place.is_dir() else ("file", path.rstrip("/"))
            raise Failed(
                f"{path} in `persist` of {deployment.app} is a {is_} in the source",
                todo=f'write "{right}" in [apps.{deployment.app}] persist: a folder ends with /, a file does not',
            )
        app_command.run(
            deployment,
            ["/bin/sh", "-ec", _FIRST_FOLDER if folder else _FIRST_FILE, "sh", str(place), str(lasting)],
            called=f"cp {place} {lasting}",
        )
        trees.remove(place)
    _folders(place.parent, made, group)
    place.symlink_to(lasting)


def _link_compiled(kept: Path, place: Path, made: set[Path], group: int) -> None:
    """What root compiled of a file that did not change (same time, same size) need not be compiled again.

    What it compiled of another file with the same text (many are empty) has another name: that is no help.
    """
    if kept.suffix != ".py" or kept.name != place.name:
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
    """Takes the release from those who built it and notes how every file looks: an altered one is seen, it is whole.

    Raises Failed when a folder that nginx is to serve is not there.
    """
    code, static, public = (deployment.folder / name for name in ("code", "static", "public"))
    contents = [(path, sha) for path, _, _, sha in listing]
    if deployment.builds:
        account = pwd.getpwnam(deployment.app)
        laid = paths.read_json(deployment.folder / _LAID, [])
        altered = {path for path, *seen in laid if tuple(seen) != _seen(code / path)}
        contents = [(path, sha) for path, sha in contents if path not in altered]
        trees.take(code, account.pw_uid, 0, account.pw_gid)
    linked = links.seal(code, deployment.links, deployment.app)
    for name in deployment.public:
        trees.publish(code, name, public, grp.getgrnam("www-data").gr_gid, deployment.home)
    paths.write(
        deployment.folder / "release.json",
        json.dumps(
            {
                "release": deployment.release,
                "label": deployment.label,
                "venv": deployment.venv.key,
                "made": time.time(),
                "seals": list(trees.seals(code)),
                "links": linked,
                "static": list(trees.seals(static)),
                "public": list(trees.seals(public)),
                "contents": contents,
            }
        ),
    )
    (deployment.folder / _LAID).unlink(missing_ok=True)


def compile_all(deployment: Deployment, files: int) -> None:
    """Compiles the code: as root, since the app may not write there, unless it builds there. `files`: how many.

    Never by the virtualenv's own python: what the app's requirements put there (a .pth file, even another bin/python)
    would run as root. A file that is no Python is no error.
    """
    code = str(deployment.folder / "code")
    python = virtualenv.trusted(deployment.virtualenv)
    words = ("-I", "-S", "-c", virtualenv.COMPILE, code, "2" if files > _MANY else "1")
    if deployment.builds:  # it is the app's yet, and so is what it may have put in the way
        program = python or f"{deployment.virtualenv}/bin/python"
        app_command.run(deployment, [program, *words], called="compileall", check=False)
        return
    if python is not None:
        try:
            run([python, *words], check=False, timeout=deployment.command_timeout)
        except TimedOut as late:
            raise app_command.too_long(deployment, "compileall", late.seconds) from None
    run(["chown", "-R", "-h", f"root:{deployment.app}", code])


def persist(deployment: Deployment, settings: dict[str, str]) -> None:
    """Where a project writes inside its own folder, a link leads to the place that outlives the release.

    Uploads that it keeps elsewhere in its home, beside other data of its own, are brought to where nginx serves them.
    """
    home = deployment.home
    _redirect(deployment, settings["STATIC_ROOT"], deployment.folder / "static")
    uploads = home / "media"
    if not deployment.media:  # the app serves them itself, so there is no such folder
        uploads = home / "data/media"
        if _inside(deployment, settings["MEDIA_ROOT"]) is not None:
            app_command.run(deployment, ["mkdir", "-p", str(uploads)])
    elif settings["MEDIA_ROOT"] and _real(Path(settings["MEDIA_ROOT"])).is_relative_to(_real(home) / "persist"):
        raise Failed(
            f"MEDIA_ROOT of {deployment.app} is in `persist`, and nginx serves uploads from {uploads}",
            todo="take it out of `persist`: uploads outlive releases anyway; or set media = false",
        )
    _redirect(deployment, settings["MEDIA_ROOT"], uploads)
    if deployment.media:
        _uploads(deployment, settings["MEDIA_ROOT"])
    if settings["sqlite"] and settings["sqlite"] != ":memory:":
        place = _inside(deployment, settings["sqlite"])
        if place is not None and not place.is_symlink():
            _link(deployment, place, home / "data" / place.name)


#: $1 becomes a link to $2, and what is in it moves there; what is there under the same name already stays where it is,
#: and fails the last step.
_MOVE = """\
[ ! -L "$1" ] || exit 0
if [ -d "$1" ]; then
    find "$1" -mindepth 1 -maxdepth 1 -exec mv -n -t "$2" -- {} +
    rmdir -- "$1"
fi
mkdir -p -- "$(dirname -- "$1")"
ln -s -- "$2" "$1"
"""


def _uploads(deployment: Deployment, setting: str) -> None:
    place, media = Path(setting), deployment.home / "media"
    homes = [deployment.home / name for name in ("data", "home")]
    if not setting or not any(home in place.parents for home in homes) or place.is_symlink():
        return
    words = ["/bin/sh", "-ec", _MOVE, "sh", str(place), str(media)]
    done = app_command.run(deployment, words, called=f"mv {place} {media}", check=False)
    if done.returncode != 0:
        raise Failed(
            f"uploads of {deployment.app} are in {place} (MEDIA_ROOT), and cannot be moved to {media}",
            done.stderr.strip(),
            f"move them there by hand and remove {place}; the live release is untouched",
        )
    account, www = pwd.getpwnam(deployment.app), grp.getgrnam("www-data")
    trees.take(media, account.pw_uid, account.pw_uid, www.gr_gid, folders=0o2750)


def gather(deployment: Deployment, setting: str) -> None:
    """Copies static files that a project keeps elsewhere (in its package, in its data) to where nginx serves them.

    It reads its own copy still, as ManifestStaticFilesStorage does for the names of the files.
    """
    place, static = Path(setting), deployment.folder / "static"
    if not setting or not os.path.isdir(place) or _real(place) == _real(static):
        return
    # As the app, which could have put links there; links are followed, for what it may not read it cannot copy.
    app_command.run(deployment, ["cp", "-R", "-L", "-n", f"{place}/.", str(static)], check=False)


def _inside(deployment: Deployment, setting: str) -> Path | None:
    """A place in the release's code that is not kept elsewhere already; what the app says may have ../ in it."""
    place, code = Path(os.path.normpath(setting)), deployment.folder / "code"
    if not setting or not place.is_relative_to(code) or place == code:
        return None
    return place if _real(place.parent).is_relative_to(_real(code)) else None  # else it persists already


def _redirect(deployment: Deployment, setting: str, lasting: Path) -> None:
    place = _inside(deployment, setting)
    if place is None or place.is_symlink():
        return
    if place.is_dir():
        # As the app: it owns the place, and could have put links there that lead root astray. cp of coreutils 9.2 to
        # 9.4 calls it a failure that a file is there already.
        app_command.run(deployment, ["cp", "-r", "-n", f"{place}/.", str(lasting)], check=False)
    _link(deployment, place, lasting)


def _link(deployment: Deployment, place: Path, lasting: Path) -> None:
    """A link instead of what is there; made by who owns the code now, so that no link on the way leads root astray."""
    for words in (
        ["rm", "-rf", "--", str(place)],
        ["mkdir", "-p", "--", str(place.parent)],
        ["ln", "-s", "--", str(lasting), str(place)],
    ):
        if deployment.builds:
            app_command.run(deployment, words)
        else:
            run(words)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for links in a circle, before Python 3.13
