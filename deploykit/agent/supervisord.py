"""Supervisor by its own XML-RPC over its socket: one program at a time, so that no other program is touched.

`supervisorctl` costs 0.15 s a call, and its `update` acts on everything that changed.
Source: supervisord.org/api.html.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from deploykit.agent import xmlrpc
from deploykit.agent.process import forget, remembered, run
from deploykit.agent.resource import Failed, NotYet
from deploykit.model import layout

_STILL_RUNNING = 91
_BAD_NAME = 10  # the fault of a program that supervisor does not know
_STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


def _call(method: str, *arguments: str | bool) -> Any:
    deadline = time.monotonic() + 10
    while True:
        try:
            return xmlrpc.call(str(layout.supervisors_socket()), f"supervisor.{method}", *arguments)
        except (FileNotFoundError, ConnectionRefusedError):
            # Its service counts as started some tenths of a second before its socket is there. When it was killed,
            # systemd starts it again in a moment.
            said = run(("systemctl", "is-active", "supervisor.service"), check=False).stdout.strip()
            if said not in ("active", "activating", "reloading") or time.monotonic() > deadline:
                raise NotYet("supervisor does not run") from None
        except xmlrpc.Unexpected as error:
            raise Failed(
                "supervisor does not answer as it should",
                str(error),
                "its socket must let root in without a password (/etc/supervisor/supervisord.conf)",
            ) from None
        time.sleep(0.05)


@remembered
def processes() -> dict[str, dict[str, Any]]:
    """Every program by name: statename, pid, start (epoch seconds), spawnerr, ..."""
    return {each["name"]: each for each in _call("getAllProcessInfo")}


def state(program: str) -> str:
    """ "RUNNING", "STARTING", "BACKOFF", "FATAL", ... or "ABSENT"."""
    found = processes().get(program)
    return str(found["statename"]) if found else "ABSENT"


def started(program: str) -> float:
    """When a program was started last, in seconds since the epoch; 0 for one that was not."""
    return float(processes().get(program, {}).get("start", 0))


def of(app: str, slot: str) -> list[str]:
    """The programs of a slot that supervisor knows: the main web server, then the others."""
    name = f"{app}-{slot}"
    try:
        return sorted(each for each in processes() if each == name or each.startswith(f"{name}."))
    except NotYet:
        return []


def add(*programs: str) -> None:
    """Starts programs whose configuration file was just written; one of that name is stopped first."""
    remove(*programs)
    program = ""
    try:
        _call("reloadConfig")
        for program in programs:
            _call("addProcessGroup", program)
    except xmlrpc.Fault as fault:
        raise Failed(f"supervisor refuses the program {program}", fault.text) from None
    except NotYet:
        raise Failed("supervisor does not run", todo="`systemctl status supervisor` on the host says why") from None
    finally:
        forget()


def stop(*programs: str) -> None:
    """Asks programs to end, with their own signal, and does not wait for it; no-op for those that are not there."""
    for program in programs:
        try:
            _call("stopProcessGroup", program, False)
        except xmlrpc.Fault as fault:
            if fault.code != _BAD_NAME:
                raise Failed(f"supervisor cannot stop {program}", fault.text) from None
        except NotYet:
            return


def remove(*programs: str) -> None:
    """Stops programs (their own stop signal and time) and lets supervisor forget them; no-op for those not there.

    All are asked to end, then each is waited for: again and again instead of with supervisor's own `wait`, which
    answers up to a second late, for its loop sleeps that long unless something wakes it, and each question does.
    """
    left = list(programs)
    try:
        while left:
            left = [each for each in left if not _gone(each)]
            if left:
                time.sleep(0.03)
    except NotYet:
        pass  # it does not run; what may live of its programs, the launcher's notes tell (launched.py)
    finally:
        forget()


def _gone(program: str) -> bool:
    try:
        # Each time anew: one that has just crashed is not stopped, but started again in the same turn.
        _call("stopProcessGroup", program, False)
        stopped = _call("getProcessInfo", f"{program}:{program}")["statename"] in _STOPPED
        return stopped and _removed(program)
    except xmlrpc.Fault as fault:
        if fault.code == _BAD_NAME:
            return True
        raise Failed(f"supervisor cannot stop {program}", fault.text) from None


def _removed(program: str) -> bool:
    try:
        _call("removeProcessGroup", program)
    except xmlrpc.Fault as fault:
        if fault.code == _STILL_RUNNING:
            return False
        raise
    return True


def reread() -> None:
    """Lets supervisor read its files again; nothing is started or stopped by that."""
    # A program file that somebody else broke is not ours to judge here.
    with contextlib.suppress(xmlrpc.Fault, NotYet):
        _call("reloadConfig")
    forget()
