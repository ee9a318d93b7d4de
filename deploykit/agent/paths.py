"""Where deploykit keeps what it must remember on a host. One root, so that tests can put it in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

STATE = Path(os.environ.get("DEPLOYKIT_STATE", "/var/lib/deploykit"))

LOCK = STATE / "lock"
PROGRAMS = STATE / "programs"  # locked while a program that a run started goes on
MANIFEST = STATE / "manifest.json"  # the resources deploykit made here
PENDING = STATE / "pending"  # actions that changes still owe
RUNS = STATE / "runs"  # events of each run, for who attaches again
INCOMING = STATE / "incoming"  # per run: files that were sent to it
JOURNAL = STATE / "journal.jsonl"
SECRETS = STATE / "secrets"
APPS = STATE / "apps"  # per app: which slot runs which release

_PART = ".deploykit"  # how the names of files end that are being written

#: The folders in which this process has looked for what killed runs left: their device and inode.
_swept: set[tuple[int, int]] = set()

#: What `known_json` has read of each file, and what tells that file from another.
_known: dict[Path, tuple[tuple[int, int, int], Any]] = {}


def write(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Writes a file of deploykit's own so that a crash leaves the old or the new text, never a part."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = path.parent / part(folder, path.name)
    finally:
        os.close(folder)
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    sync(path.parent)


def part(folder: int, name: str) -> str:
    """A file's name in the open `folder` while it is written. What killed runs left there is cleared away."""
    status = os.fstat(folder)
    mark = (status.st_dev, status.st_ino)
    if mark not in _swept:  # once: thousands of files may come into it
        _sweep(folder)
        _swept.add(mark)
    own = f".{name[:200]}.{os.getpid()}{_PART}"
    with contextlib.suppress(FileNotFoundError):  # of a killed run with our number
        os.unlink(own, dir_fd=folder)
    return own


def _sweep(folder: int) -> None:
    for found in os.listdir(f"/proc/self/fd/{folder}"):  # O_PATH will do
        name, _, pid = found.removesuffix(_PART).rpartition(".")
        if found.endswith(_PART) and name.startswith(".") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(found, dir_fd=folder)


def names(folder: Path) -> list[str]:
    """The names in a folder; none where there is none."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def sync(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path, default: Any) -> Any:
    """What `write_json` wrote; `default` where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return default


def known_json(path: Path, default: Any) -> Any:
    """As `read_json`, for who only looks at it: read again when the file is another than at the last look."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return default
    mark = (status.st_ino, status.st_mtime_ns, status.st_size)
    kept = _known.get(path)
    if kept is None or kept[0] != mark:
        kept = _known[path] = mark, read_json(path, default)
    return kept[1]


def update_json(path: Path, value: Any) -> None:
    """As `write_json`, when it is not what is there already: a write waits for the disk."""
    try:
        if path.read_text() == _text(value):
            return
    except FileNotFoundError:
        pass
    write_json(path, value)


def write_json(path: Path, value: Any) -> None:
    """Keeps a plain value, readable by root only."""
    _known.pop(path, None)  # what was there may be back under the same mark before a clock ticks
    write(path, _text(value))


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
