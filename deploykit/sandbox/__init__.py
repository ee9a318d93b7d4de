"""Throw-away real machines on this one: Debian or Ubuntu with systemd and sshd, booted in seconds.

>>> from deploykit import sandbox
>>> host = sandbox.up("web1")            # doctest: +SKIP
>>> sandbox.run("web1", "uname", "-n").stdout   # doctest: +SKIP
b'web1\\n'
>>> sandbox.down("web1")                 # doctest: +SKIP
"""

from .errors import SandboxError
from .image import BASE, Image
from .machine import down, every, find, prepare, reboot, reset, run, start, stop, up
from .store import Sandbox

__all__ = [
    "BASE",
    "Image",
    "Sandbox",
    "SandboxError",
    "down",
    "every",
    "find",
    "prepare",
    "reboot",
    "reset",
    "run",
    "start",
    "stop",
    "up",
]
