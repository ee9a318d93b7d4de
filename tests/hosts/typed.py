"""`fab` on a terminal, as a person types it: a pseudo-terminal of which the test is the keyboard and the eye."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Typist:
    """One command on a terminal of its own. A context: a command that still runs at its end is killed."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], folder: Path, columns: int = 80, rows: int = 24):
        self.said = ""
        self._read = 0  # up to where `sees` has looked
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(argv[0], list(argv), {**env, "TERM": "xterm"})
        self.resize(columns, rows)

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._master)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def sees(self, text: str, seconds: float = 30) -> None:
        """Waits until `text` is shown, after what was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.said.find(text, self._read)) < 0:
            assert time.monotonic() < deadline, f"no {text!r} in {self.said[self._read :]!r}"
            assert self._more(), f"it ended without {text!r}: {self.said!r}"
        self._read = at + len(text)

    def answers(self, question: str, text: str) -> None:
        self.sees(question)
        time.sleep(0.2)  # an echo is switched off after the question was written
        self.type(f"{text}\r")

    def ends(self, seconds: float = 30) -> int:
        """The exit status, once it has ended."""
        deadline = time.monotonic() + seconds
        while self._more():
            assert time.monotonic() < deadline, f"it does not end: {self.said!r}"
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _more(self) -> bool:
        if select.select([self._master], [], [], 0.5)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end any more
                return False
            self.said += data.decode(errors="replace")
        return True
