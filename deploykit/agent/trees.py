"""Trees of files that go from hand to hand: the app builds in its code, then the code is root's, and nginx gets a copy.

What an app has in its hands it may have filled with links and pipes, and may change while we look. So root goes by
descriptors, never through a link, and takes nothing that is not the app's: where fs.protected_hardlinks is off, an app
could put another's file there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deploykit.agent.process import TimedOut, run, tail
from deploykit.agent.resource import Failed

#: (path below the top, size, time of change in ns) of a file, by which an altered one is seen.
Seal = tuple[str, int, int]

#: Made by others than us, at any time or in great numbers, and nothing that Django reads: such folders are not sealed.
_UNSEALED = ("__pycache__", "node_modules", ".git")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEEPEST = 200  # folders in one another; each is open while what is in it is taken
_PATIENCE = 3600.0  # seconds to remove a tree


def give(top: Path, user: int, group: int) -> None:
    """Makes a tree that only root has written to `user`'s.

    From below: what was given is in the app's hands at once, so the path to what comes next must be root's still.
    """
    for place, inner, names in os.walk(top, topdown=False):
        for name in (*inner, *names):
            os.chown(os.path.join(place, name), user, group, follow_symlinks=False)
    os.chown(top, user, group)


def take(top: Path, user: int, owner: int, group: int, *, folders: int = 0o750) -> None:
    """Makes a tree of `user`'s belong to `owner`, who alone may write to it, and `group`, who may read it.

    What is neither file, folder nor link is removed. Raises Failed, also for what is neither `user`'s nor in its hands.
    """
    try:
        here = os.open(top, _FOLDER)
        try:
            _take_folder(here, str(top), (user, owner, group, folders), 0)
        finally:
            os.close(here)
    except OSError as error:
        raise Failed(
            f"{top} could not be taken from the app: {error.strerror or error}",
            todo="end what changes it meanwhile (a hook may have left a process), then deploy again; the live release "
            "is untouched",
        ) from None


def _take_folder(here: int, place: str, hands: tuple[int, int, int, int], depth: int) -> None:
    user, owner, group, folders = hands
    if depth > _DEEPEST:
        raise Failed(f"{place} is more than {_DEEPEST} folders deep", todo="correct the build and deploy again")
    _mine(os.fstat(here), user, place)
    os.fchown(here, owner, group)
    os.fchmod(here, folders)
    for name in os.listdir(here):  # only now: until here the app could put something in
        try:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):
            inner = os.open(name, _FOLDER, dir_fd=here)
            try:
                _take_folder(inner, os.path.join(place, name), hands, depth + 1)
            finally:
                os.close(inner)
        elif stat.S_ISLNK(found.st_mode):
            os.chown(name, owner, group, dir_fd=here, follow_symlinks=False)
        elif stat.S_ISREG(found.st_mode):
            _take_file(here, name, place, user, owner, group)
        else:
            os.unlink(name, dir_fd=here)


def remove(top: str | Path, *, check: bool = True) -> str:
    """Removes what is at `top` with all in it, and follows no link: what `rm` complains of, "" when it is gone.

    By `rm`, which goes as deep as an app may have made it and opens no pipe that an app puts in a folder's place
    (Python's rmtree does one call a level, and before 3.12 it waits for who writes into the pipe). With `check` raises
    Failed when something stays.
    """
    if not os.path.lexists(top):
        return ""
    try:
        words = tail(run(["rm", "-rf", "--", str(top)], check=False, timeout=_PATIENCE).stderr, 5)
    except TimedOut as late:
        words = late.what
    if check and words:
        raise Failed(f"{top} could not be removed", words, "correct that on the host, then run the same command again")
    return words


def _take_file(here: int, name: str, place: str, user: int, owner: int, group: int) -> None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    try:
        found = os.fstat(file)
        _mine(found, user, os.path.join(place, name))
        os.fchown(file, owner, group)  # takes set-id bits away
        os.fchmod(file, 0o750 if found.st_mode & 0o111 else 0o640)
    finally:
        os.close(file)


def _mine(found: os.stat_result, user: int, place: str) -> None:
    if found.st_uid != user:
        raise Failed(
            f"{place} is of user {found.st_uid}: the build has put a file of somebody else's into the release",
            todo="look at it and correct the hooks; the live release is untouched",
        )


def seals(top: Path) -> Iterator[Seal]:
    """The seal of each file of a tree, links left out and not followed."""
    for place, inner, names in os.walk(top):
        inner[:] = sorted(each for each in inner if each not in _UNSEALED)
        for name in sorted(names):
            path = os.path.join(place, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and not name.endswith(".pyc"):
                yield os.path.relpath(path, top), found.st_size, found.st_mtime_ns


def publish(code: Path, name: str, public: Path, group: int, apart: Path) -> None:
    """Copies the folder `name` of the code, which is root's, to `public`, for `group` to read.

    A link is followed as far as the code goes; one to what is kept `apart` (of the app's home) is left out. Raises
    Failed.
    """
    import shutil  # not for who only looks

    top = _real(code)
    source = _real(code / name)
    if not (code / name).is_dir():
        raise Failed(
            f"the folder {name}, which nginx is to serve, is not there after the build",
            todo="build it by a hook, or correct `folder` in the app's nginx.locations; the live release is untouched",
        )
    if not source.is_relative_to(top):
        raise _out(name, name)
    target = public
    _folder(target, group)
    for part in Path(name).parts:
        target /= part
        _folder(target, group)
    for place, inner, names in os.walk(source):
        inside = os.path.relpath(place, source)
        here = target / inside
        for each in inner:
            if not os.path.islink(os.path.join(place, each)):
                _folder(here / each, group)
        for each in (*names, *(each for each in inner if os.path.islink(os.path.join(place, each)))):
            file = Path(place, each)
            real = _real(file)
            if file.is_symlink() and real.is_relative_to(source) and not os.readlink(file).startswith("/"):
                (here / each).symlink_to(os.readlink(file))
            elif real.is_relative_to(top) and real.is_file():
                shutil.copyfile(real, here / each)
                os.chown(here / each, 0, group)
                os.chmod(here / each, 0o640)
            elif not real.is_relative_to(apart) or real.is_relative_to(top):
                raise _out(os.path.normpath(f"{name}/{inside}/{each}"), name)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for links in a circle, before Python 3.13


def _folder(place: Path, group: int) -> None:
    place.mkdir(mode=0o750, exist_ok=True)
    os.chown(place, 0, group)
    place.chmod(0o750)


def _out(link: str, name: str) -> Failed:
    return Failed(
        f"{link} is a link that leads out of what nginx is to serve",
        todo=f"let the build put files into {name}, or `persist` it; the live release is untouched",
    )
