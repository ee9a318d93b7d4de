"""The processes of a slot by the launcher's own notes (templates/app/launch): they may outlive supervisor.

Only root writes these notes, and a number counts only with the time at which its process began: an app can neither have
another's process ended, nor hide its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from deploykit.model import layout

_PATIENCE = 10.0  # seconds that a process gets to end when supervisor is not there to ask it


def main(app: str, slot: str, name: str = "web") -> int:
    """The main process of a program of a slot; 0 when it does not run."""
    return _living(layout.started(app, slot, name))


def end(app: str, slot: str) -> None:
    """Ends what is left of a slot's programs once supervisor has stopped them, or does not run, and their notes."""
    notes = [each for each in _listed(layout.sockets(app)) if _of_slot(each, slot)]
    left = [pid for each in notes if (pid := _living(each))]
    if left:
        import signal

        deadline = time.monotonic() + _PATIENCE
        for number, until in ((signal.SIGTERM, deadline), (signal.SIGKILL, deadline + _PATIENCE)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)
            while left and time.monotonic() < until:
                left = [pid for each in notes if (pid := _living(each))]
                time.sleep(0.03)
    for each in notes:
        each.unlink(missing_ok=True)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _of_slot(path: Path, slot: str) -> bool:
    return path.name.startswith(f"{slot}.") and path.name.endswith(".pid")


def _living(note: Path) -> int:
    try:
        pid, start = note.read_text().split()
        state = Path(f"/proc/{int(pid)}/stat").read_bytes().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return 0
    return int(pid) if state[0] not in (b"Z", b"X") and state[19].decode() == start else 0
