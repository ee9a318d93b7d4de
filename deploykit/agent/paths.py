"""Where deploykit keeps what it must remember on a host. One root, so that tests can put it in a temporary folder."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

STATE = Path(os.environ.get("DEPLOYKIT_STATE", "/var/lib/deploykit"))

LOCK = STATE / "lock"
MANIFEST = STATE / "manifest.json"  # the resources deploykit made here
PENDING = STATE / "pending"  # actions that changes still owe
RUNS = STATE / "runs"  # events of each run, for who attaches again
JOURNAL = STATE / "journal.jsonl"
SECRETS = STATE / "secrets"
APPS = STATE / "apps"  # per app: which slot runs which release


def write(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Writes a file of deploykit's own so that a crash leaves the old or the new text, never a part."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


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


def write_json(path: Path, value: Any) -> None:
    """Keeps a plain value, readable by root only."""
    write(path, json.dumps(value, separators=(",", ":")))
