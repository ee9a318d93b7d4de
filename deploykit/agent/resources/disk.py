"""Touching paths as root where an app's user may own a folder on the way: nobody's symlink leads us elsewhere.

Every write goes through the parent folder's descriptor, which `parent` opens component by component. A symlink on
the way is followed only when root made it (`/var/run`, `/bin`): with a folder of its own an app could otherwise
point `data` at `/etc` and have root write there (CWE-59, CWE-367).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import os
import pwd
import stat
from collections.abc import Iterator

from deploykit.agent import paths
from deploykit.agent.resource import Failed

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOPS = 40  # as Linux's own limit of symlinks in one path (path_resolution(7))


@contextlib.contextmanager
def parent(path: str) -> Iterator[tuple[int, str]]:
    """The descriptor of the folder that holds `path`, and the last name in it. Raises Failed.

    The descriptor is good for `dir_fd=` alone (O_PATH); `seal` makes changes in the folder durable.
    """
    if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
        raise Failed(f"{path!r} is not a path that can be managed", "It must be absolute, without . and .. in it.")
    folder, name = os.path.split(path)
    descriptor = _walk(folder, path)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)


def _walk(folder: str, path: str) -> int:
    left = [part for part in reversed(folder.split("/")) if part]
    here = os.open("/", _FOLDER)
    hops = 0
    try:
        while left:
            name = left.pop()
            if name in (".", ""):
                continue
            try:
                there = os.open(name, _FOLDER, dir_fd=here)
            except FileNotFoundError:
                raise Failed(
                    f"{path} cannot be made: its folder {folder} does not exist",
                    todo="A recipe must yield the folder (Directory) or its package before it.",
                ) from None
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                hops += 1
                if not stat.S_ISLNK(found.st_mode):
                    raise Failed(f"{path} cannot be made: {name} on the way to it is not a folder") from None
                if found.st_uid != 0 or hops > _HOPS:
                    raise Failed(
                        f"{path} was not touched: {name} on the way is a symbolic link of {owner(found.st_uid)}'s",
                        todo=f"Look at the link; remove it, then deploy again. Who owns {folder} may be hostile.",
                    ) from None
                target = os.readlink(name, dir_fd=here)
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", _FOLDER)
                left += [part for part in reversed(target.split("/")) if part]
            else:
                os.close(here)
                here = there
    except BaseException:
        os.close(here)
        raise
    return here


def write(path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
    """Puts a whole file at `path` in one step: a reader sees the old or the new one, also after a power failure.

    What is there is replaced; of a symbolic link, the link. A folder there raises Failed.
    """
    with parent(path) as (folder, name):
        _refuse_folder(folder, name, path)
        part = paths.part(folder, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _told(path):
            descriptor = os.open(part, flags, 0o600, dir_fd=folder)
            try:
                with open(descriptor, "wb") as out:
                    out.write(content)
                    out.flush()
                    os.fchown(out.fileno(), uid, gid)
                    os.fchmod(out.fileno(), mode)  # after the owner: a change of owner drops set-id bits
                    os.fsync(out.fileno())
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            seal(folder)


def link(path: str, target: str) -> None:
    """Points a symbolic link elsewhere, or makes it, in one step. Whatever is there is replaced, but a folder."""
    with parent(path) as (folder, name):
        _refuse_folder(folder, name, path)
        part = paths.part(folder, name)
        with _told(path):
            os.symlink(target, part, dir_fd=folder)
            try:
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            seal(folder)


def unlink(path: str) -> None:
    """Removes a file or a symbolic link; fine when it is gone already. A folder raises Failed."""
    try:
        with parent(path) as (folder, name):
            _refuse_folder(folder, name, path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                seal(folder)
    except Failed:
        if os.path.lexists(os.path.dirname(path)):
            raise


def seal(folder: int) -> None:
    """Makes names that changed in a folder durable: fsync of the folder itself."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_folder(folder: int, name: str, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise Failed(f"{path} is a folder on the host", todo="Look what is in it; move it away, then deploy again.")


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """The system's own errors of a write, in words that say what to do."""
    try:
        yield
    except OSError as error:
        todo = {
            errno.ENOSPC: "The disk is full: `df -h`, and `df -i` for inodes; make room, then deploy again.",
            errno.EDQUOT: "A disk quota is used up; raise it, then deploy again.",
            errno.EROFS: "The file system is mounted read-only; `dmesg` says why.",
            errno.EPERM: "The file may be immutable: `lsattr`, `chattr -i`.",
        }.get(error.errno or 0, "")
        raise Failed(f"{path} could not be written: {error.strerror}", todo=todo) from error


def described(found: os.stat_result, path: str) -> str:
    """What stands at a path where something else was wanted, in words."""
    if stat.S_ISLNK(found.st_mode):
        return f"(a symbolic link to {os.readlink(path)})"
    if stat.S_ISDIR(found.st_mode):
        return "(a folder)"
    if stat.S_ISREG(found.st_mode):
        return "(a file)"
    return "(a socket, pipe or device)"


def permissions(found: os.stat_result) -> str:
    """Permission bits as people write them: 0644, 2750."""
    return f"{stat.S_IMODE(found.st_mode):04o}"


def owner(uid: int) -> str:
    """The name of a user's number, or the number when nobody has it."""
    if uid == 0:
        return "root"
    return _user_names().get(uid) or _asked_user(uid)


def group(gid: int) -> str:
    """The name of a group's number, or the number when nobody has it."""
    if gid == 0:
        return "root"
    return _group_names().get(gid) or _asked_group(gid)


def uid(name: str) -> int:
    """The number of a user (or of a number given as text). Raises Failed."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise Failed(f"the host has no user {name}", todo="A recipe must yield the User before its files.") from None


def gid(name: str) -> int:
    """The number of a group (or of a number given as text). Raises Failed."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise Failed(f"the host has no group {name}", todo="A recipe must yield the Group or User before.") from None


def _asked_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _asked_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_names() -> dict[int, str]:
    return _names("/etc/passwd", _changed("/etc/passwd"))


def _group_names() -> dict[int, str]:
    return _names("/etc/group", _changed("/etc/group"))


def _changed(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino


@functools.lru_cache(maxsize=4)
def _names(path: str, changed: tuple[int, int]) -> dict[int, str]:
    """Numbers to names. Read by ourselves: to ask the name service for each of hundreds of files costs more."""
    names: dict[int, str] = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split(":")
            if len(fields) > 2 and fields[2].isdigit():
                names.setdefault(int(fields[2]), fields[0])
    return names
