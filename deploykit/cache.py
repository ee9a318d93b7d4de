"""What is kept on this machine between commands: it makes them faster, and may be thrown away at any time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

#: As https://specifications.freedesktop.org/basedir-spec/ has it.
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deploykit"


def keep(place: Path, text: str) -> None:
    """Writes a file so that whoever reads it meanwhile sees the old or the new one. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(f".{os.getpid()}-{threading.get_ident():x}")
    fresh.write_text(text)
    fresh.replace(place)
