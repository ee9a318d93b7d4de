"""Commands of an app's: they run as its user, for a limited time, and what they print is bounded.

A command that never ends would hold the host's lock, and with it every deploy of every app.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence

from deploykit.agent.deployment import Deployment
from deploykit.agent.process import TimedOut
from deploykit.agent.process import run as run_program
from deploykit.agent.resource import Failed

Tell = Callable[[str], None]

#: Lines of one command that are passed on, and characters of each: all of them go to a person and to the host's disk.
_MOST_LINES = 20_000
_LONGEST_LINE = 4_000


def run(
    deployment: Deployment,
    argv: Sequence[str],
    *,
    called: str = "",
    env: Mapping[str, str] | None = None,
    whole: bool = False,
    cwd: str | None = None,
    stdin: str = "",
    check: bool = True,
    output: Tell | None = None,
    into: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `process.run`, by the app's user and within its `command_timeout`. `called`: what an error calls it.

    Raises Failed.
    """
    try:
        return run_program(
            argv,
            user=deployment.app,
            env=env,
            whole=whole,
            cwd=cwd,
            stdin=stdin,
            check=check,
            output=bounded(output) if output is not None else None,
            into=into,
            timeout=deployment.command_timeout,
        )
    except TimedOut as late:
        raise too_long(deployment, called or " ".join(argv), late.seconds) from None


def too_long(deployment: Deployment, called: str, seconds: float) -> Failed:
    """The error that a command is which took longer than it may."""
    app = deployment.app
    return Failed(
        f"`{called}` of {app} did not end within {seconds:g} s, so it was ended",
        todo=f"correct it, or set a longer command_timeout in [apps.{app}], and deploy again; the live release is "
        "untouched",
    )


def bounded(tell: Tell) -> Tell:
    """`tell` for so many lines of so many characters; then it says once that the rest is not shown."""
    count = 0

    def told(line: str) -> None:
        nonlocal count
        count += 1
        if count <= _MOST_LINES:
            tell(line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}...")
        elif count == _MOST_LINES + 1:
            tell("(the rest of its output is not shown)")

    return told
