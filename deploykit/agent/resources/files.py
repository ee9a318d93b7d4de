"""Files, folders and links: what most recipes are made of."""

from __future__ import annotations

import errno
import os
import stat
from typing import ClassVar

from deploykit.agent import store
from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Aspect, Failed, Resource, State
from deploykit.agent.resources import disk
from deploykit.agent.secret import Joined, Secret

#: A file larger than this is told from ours by its size alone, in bytes: nothing a recipe writes comes near.
_LARGEST = 4 << 20


@dataclass(frozen=True)
class File(Resource):
    """A file with the whole of its content. Its folder must be there. Secret content is never shown.

    What the host's own secrets are part of (Joined) is put together there; they are those of the resource's app.
    """

    path: str
    content: str | Secret | Joined
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644

    @property
    def key(self) -> str:
        return f"file {self.path}"

    def wanted(self) -> State:
        content = self._plain(make=False)
        return {"content": content, "owner": self.owner, "group": self.group, "mode": f"{self.mode:04o}"}

    def observe(self) -> State | None:
        try:
            text, found = _read(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        content: Aspect = text if isinstance(self.content, str) else Secret(text)
        return {
            "content": content,
            "owner": disk.owner(found.st_uid),
            "group": disk.group(found.st_gid),
            "mode": disk.permissions(found),
        }

    def change(self, observed: State | None) -> None:
        content = self._plain(make=True)
        text = content.reveal() if isinstance(content, Secret) else content
        disk.write(self.path, text.encode(), disk.uid(self.owner), disk.gid(self.group), self.mode)

    def _plain(self, *, make: bool) -> str | Secret:
        if isinstance(self.content, Joined):
            return Secret(store.plain(self.app, self.content, make=make))
        return self.content

    def remove(self) -> None:
        disk.unlink(self.path)


def _read(path: str) -> tuple[str, os.stat_result]:
    """A file's text, or in words what else is there."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe put there must not make us wait
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        found = os.lstat(path)
        return disk.described(found, path), found
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return disk.described(found, path), found
    with open(descriptor, "rb") as file:
        if found.st_size > _LARGEST:
            return f"({found.st_size} bytes)", found
        content = file.read()
    try:
        return content.decode(), found
    except UnicodeDecodeError:
        import hashlib

        return f"({len(content)} bytes that are no text, SHA-256 {hashlib.sha256(content).hexdigest()})", found


@dataclass(frozen=True)
class Directory(Resource):
    """A folder; what is in it is not its matter. Removed only when empty, otherwise left as it is."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755

    @property
    def key(self) -> str:
        return f"directory {self.path}"

    def wanted(self) -> State:
        return {"owner": self.owner, "group": self.group, "mode": f"{self.mode:04o}"}

    def observe(self) -> State | None:
        try:
            found = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        mode = disk.permissions(found) if stat.S_ISDIR(found.st_mode) else disk.described(found, self.path)
        return {"owner": disk.owner(found.st_uid), "group": disk.group(found.st_gid), "mode": mode}

    def change(self, observed: State | None) -> None:
        uid, gid = disk.uid(self.owner), disk.gid(self.group)
        with disk.parent(self.path) as (folder, name):
            try:
                os.mkdir(name, 0o700, dir_fd=folder)
            except FileExistsError:
                pass
            except OSError as error:
                raise Failed(f"the folder {self.path} could not be made: {error.strerror}") from error
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                descriptor = os.open(name, flags, dir_fd=folder)
            except OSError as error:
                raise Failed(
                    f"{self.path} should be a folder and is {disk.described(os.lstat(self.path), self.path)}",
                    todo="Move it away, then deploy again. To keep an app's data on another disk, mount it there.",
                ) from error
            try:
                os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, self.mode)
            finally:
                os.close(descriptor)
            disk.seal(folder)

    def remove(self) -> None:
        try:
            with disk.parent(self.path) as (folder, name):
                os.rmdir(name, dir_fd=folder)
                disk.seal(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
                raise Failed(f"the folder {self.path} could not be removed: {error.strerror}") from error
        except Failed:
            if os.path.lexists(self.path):
                raise


@dataclass(frozen=True)
class DataDirectory(Directory):
    """A folder of an app's data: no plan removes it. Who deletes the data deletes it with all that is in it."""

    removable: ClassVar[bool] = False

    def erase(self) -> str:
        from deploykit.agent import trees  # which only a removal needs

        complaints = trees.remove(self.path, check=False)
        # A disk of the user's that is mounted there stays, empty.
        if not all(line.endswith(("resource busy", "not empty")) for line in complaints.splitlines()):
            todo = "correct that on the host, then run the same command again"
            raise Failed(f"{self.path} could not be removed", complaints, todo)
        return ""


@dataclass(frozen=True)
class Link(Resource):
    """A symbolic link. Another link in its place is replaced in one step; a real file or folder never is."""

    path: str
    target: str

    @property
    def key(self) -> str:
        return f"link {self.path}"

    def wanted(self) -> State:
        return {"target": self.target}

    def observe(self) -> State | None:
        try:
            return {"target": os.readlink(self.path)}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # EINVAL: it is something else
            return {"target": disk.described(os.lstat(self.path), self.path)}

    def change(self, observed: State | None) -> None:
        self._refuse_real()
        disk.link(self.path, self.target)

    def remove(self) -> None:
        self._refuse_real()
        disk.unlink(self.path)

    def _refuse_real(self) -> None:
        if os.path.lexists(self.path) and not os.path.islink(self.path):
            raise Failed(
                f"{self.path} should be a link and is {disk.described(os.lstat(self.path), self.path)}",
                todo="Look at it; move it away, then deploy again.",
            )


@dataclass(frozen=True)
class Absent(Resource):
    """Nothing at a path: a file or link of the distribution's that must not be there. Folders only when empty.

    When it leaves the configuration nothing comes back: not removable.
    """

    removable: ClassVar[bool] = False

    path: str

    @property
    def key(self) -> str:
        return f"absent {self.path}"

    def wanted(self) -> State:
        return {"exists": False}

    def observe(self) -> State | None:
        return {"exists": os.path.lexists(self.path)}

    def change(self, observed: State | None) -> None:
        if os.path.isdir(self.path) and not os.path.islink(self.path):
            Directory(self.path).remove()
            if os.path.lexists(self.path):
                raise Failed(f"the folder {self.path} should not be there, but something is in it")
            return
        disk.unlink(self.path)
