"""Supervisor by its own XML-RPC over its socket: one program at a time, so that no other program is touched.

`supervisorctl` costs 0.15 s a call, and its `update` acts on everything that changed.
Source: supervisord.org/api.html.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import xmlrpc.client
from typing import Any

from deploykit.agent.process import forget, remembered, run
from deploykit.agent.resource import Failed, NotYet

SOCKET = "/var/run/supervisor.sock"
_STILL_RUNNING = 91
_BAD_NAME = 10  # the fault of a program that supervisor does not know
_STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(120)
        self.sock.connect(SOCKET)


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection("localhost")


def _call(method: str, *arguments: Any) -> Any:
    proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport())
    deadline = time.monotonic() + 10
    while True:
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except (FileNotFoundError, ConnectionRefusedError):
            # Its service counts as started some tenths of a second before its socket is there.
            active = run(("systemctl", "is-active", "--quiet", "supervisor.service"), check=False).returncode == 0
            if not active or time.monotonic() > deadline:
                raise NotYet("supervisor does not run") from None
        except (xmlrpc.client.ProtocolError, http.client.HTTPException) as error:
            raise Failed(
                f"supervisor does not answer as it should: {type(error).__name__}",
                todo="its socket must let root in without a password (/etc/supervisor/supervisord.conf)",
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


def add(program: str) -> None:
    """Starts a program whose configuration file was just written; one of that name is stopped first."""
    remove(program)
    try:
        _call("reloadConfig")
        _call("addProcessGroup", program)
    except xmlrpc.client.Fault as fault:
        raise Failed(f"supervisor refuses the program {program}", fault.faultString) from None
    except NotYet:
        raise Failed("supervisor does not run", todo="`systemctl status supervisor` on the host says why") from None
    finally:
        forget()


def remove(program: str) -> None:
    """Stops a program (its own stop signal and time) and lets supervisor forget it; no-op when it is not there.

    Asked for again and again instead of with supervisor's own `wait`: that answers up to a second late, for its loop
    sleeps that long unless something wakes it, and each question does.
    """
    try:
        while True:
            # Each time anew: one that has just crashed is not stopped, but started again in the same turn.
            _call("stopProcessGroup", program, False)
            if _call("getProcessInfo", f"{program}:{program}")["statename"] in _STOPPED and _removed(program):
                break
            time.sleep(0.03)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != _BAD_NAME:
            raise Failed(f"supervisor cannot stop {program}", fault.faultString) from None
    except NotYet:
        pass  # it does not run, and so nothing of it does (KillMode=mixed)
    finally:
        forget()


def _removed(program: str) -> bool:
    try:
        _call("removeProcessGroup", program)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode == _STILL_RUNNING:
            return False
        raise
    return True


def reread() -> None:
    """Lets supervisor read its files again; nothing is started or stopped by that."""
    # A program file that somebody else broke is not ours to judge here.
    with contextlib.suppress(xmlrpc.client.Fault, NotYet):
        _call("reloadConfig")
    forget()
