"""Waits on the host for the moment of a fault, then strikes: so that no round trip lies between the two."""

from __future__ import annotations

import json

from ..site import Host

#: Waits until a run that is not among the old ones has told of `text` (any run: ""), then `pause` seconds, and runs a
#: script. A run that ends first, or none within a minute, is a reason to strike at once. Prints when it struck.
_WATCH = r"""
import glob, json, os, signal, subprocess, sys, time

text, pause, script, old, at_once = json.loads(sys.argv[1])
RUNS, LOCK = "/var/lib/deploykit/runs/*.jsonl", "/var/lib/deploykit/lock"


def agent():
    # none when it has ended: its number may be another process's by now
    pid = json.load(open(LOCK))["pid"]
    try:
        ours = b"/var/lib/deploykit/agent" in open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        ours = False
    return pid if ours else 0


def kill(pid):
    try:
        if int(pid or 0) > 1:
            os.kill(int(pid), signal.SIGKILL)
        else:
            print("it had ended")
    except ProcessLookupError:
        print("it had ended")


def sh(command):
    null = subprocess.DEVNULL
    subprocess.run(["sh", "-c", command], stdin=null, stdout=null, stderr=null)


def said(command):
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True).stdout.strip()


def main_of(unit):
    return said(f"systemctl show --property=MainPID --value '{unit}'")


def moment():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in set(glob.glob(RUNS)) - set(old):
            told = open(path).read()
            if text in told:
                return f"at {text or 'the beginning'}"
            if '"event":"end"' in told:
                return f"after the end: there was no {text}"
        time.sleep(0.002)
    return f"without a run that told of {text}"


if at_once:
    print("before it began")
else:
    print(moment(), f"+ {pause} s")
    time.sleep(pause)
exec(script)
"""


class Watch:
    """The moment of a fault, and what happens in it on the host."""

    def __init__(self, host: Host, text: str, pause: float, script: str) -> None:
        self._old = host.sh("ls /var/lib/deploykit/runs/*.jsonl 2>/dev/null || true").split()
        self._host, self._text, self._pause, self._script = host, text, pause, script

    def strike(self) -> str:
        """Returns once it has struck; when that was."""
        return self._run(at_once=False)

    def at_once(self) -> str:
        """Strikes without waiting for anything."""
        return self._run(at_once=True)

    def _run(self, *, at_once: bool) -> str:
        request = json.dumps([self._text, self._pause, self._script, self._old, at_once])
        done = self._host.run("python3", "-c", _WATCH, request, check=False)
        return (done.stdout + done.stderr).strip().replace("\n", ", ")
