"""Throw-away real machines on this one: Debian or Ubuntu with systemd and sshd, booted in seconds.

>>> from deploykit import sandbox
>>> host = sandbox.up("web1")            # doctest: +SKIP
>>> sandbox.run("web1", "uname", "-n").stdout   # doctest: +SKIP
b'web1\\n'
>>> sandbox.down("web1")                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import SandboxError
from .store import Sandbox, every, find

if TYPE_CHECKING:
    from .image import BASE, Image
    from .machine import down, prepare, reboot, reset, run, start, stop, up

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

_IMAGES = ("BASE", "Image")


def __getattr__(name: str) -> Any:
    """What boots machines is imported when it is asked for: every `fab deploy` looks whether its host is a sandbox."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".image" if name in _IMAGES else ".machine", __name__), name)
