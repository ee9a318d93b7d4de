"""What is kept on this machine between commands: it makes them faster, and may be thrown away at any time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

#: As https://specifications.freedesktop.org/basedir-spec/ has it.
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deploykit"


def private(name: str) -> Path | None:
    """A folder in it for what a command relies on: None where it cannot be made, or others may write into it."""
    place = FOLDER / name
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = place.stat()
    except OSError:
        return None
    return place if owner.st_uid == os.getuid() and not owner.st_mode & 0o022 else None


def keep(place: Path, text: str) -> None:
    """Writes a file so that whoever reads it meanwhile sees the old or the new one. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(f".{os.getpid()}-{threading.get_ident():x}")
    fresh.write_text(text)
    fresh.replace(place)
