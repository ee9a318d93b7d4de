"""The commands of manage.py, one after another in one process: the project is imported once, not for each of them.

A project without a manage.py, all of it an installed package, has them by `python -m django`.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
from collections.abc import Callable
from types import TracebackType

from deploykit.agent import app_command
from deploykit.agent.deployment import Deployment, Health
from deploykit.agent.process import ENVIRONMENT, LastLines, TimedOut, as_user, end_group, kept, pieces, run, tail
from deploykit.agent.resource import Failed

Tell = Callable[[str], None]

_PATIENCE = 10.0  # seconds in which a process that has nothing more to do ends

_LONGEST = 1 << 20  # bytes of one line: more is the next line

#: What `_ASK` answers: paths, and whether static files are collected.
_SETTINGS = ("STATIC_ROOT", "MEDIA_ROOT", "staticfiles", "sqlite")
_LONGEST_PATH = 4096  # characters: PATH_MAX of Linux, limits.h

#: Runs manage.py (or a piece of code) for each line that comes, as a script each time, and says how it ended.
#: Commands come by a private copy of standard input, so that none of them reads the next one.
_DRIVER = """
import json, os, runpy, sys, traceback
lines = os.fdopen(os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
sys.path[0] = os.getcwd()
for line in lines:
    mark, code, words = json.loads(line)
    sys.argv = ["manage.py", *words]
    status = 0
    try:
        if code:
            exec(code, {"__name__": "__main__"})
        elif os.path.exists("manage.py"):
            runpy.run_path("manage.py", run_name="__main__")
        else:
            runpy.run_module("django", run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    print(mark + str(status), flush=True)
"""

#: Asks Django where it keeps things; a settings module need not read the environment for them.
_ASK = """
import json, os
from django.conf import settings
def of(name):
    value = str(getattr(settings, name, None) or "")
    return value and os.path.abspath(value)
def file(name):
    return name if not name or name == ":memory:" or name.startswith("file:") else os.path.abspath(name)
base = settings.DATABASES.get("default", {})
print("deploykit:" + json.dumps({
    "STATIC_ROOT": of("STATIC_ROOT"), "MEDIA_ROOT": of("MEDIA_ROOT"),
    "staticfiles": "yes" if "django.contrib.staticfiles" in settings.INSTALLED_APPS else "",
    "sqlite": file(str(base.get("NAME") or "")) if "sqlite" in str(base.get("ENGINE", "")) else "",
}))
"""

#: Asks for a page as the health check did, in a process of its own that prints what went wrong.
_ERROR = """
import sys, traceback
import django
django.setup()
from django.test import Client
path, host, scheme = sys.argv[1:]
try:
    Client(raise_request_exception=True).get(path, HTTP_HOST=host, HTTP_X_FORWARDED_PROTO=scheme)
except Exception:
    traceback.print_exc()
"""


def _usable(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_PATH and value.isprintable()


class Management:
    """manage.py of a release, run as the app's user with the app's own environment. A context: it ends the process.

    The process is begun when it is needed and used until a command fails: what a failed one leaves of Django in it is
    nothing to build on.
    """

    def __init__(self, deployment: Deployment, slot: str, tell: Tell) -> None:
        self._deployment = deployment
        self._slot = slot
        self._tell = tell
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""  # printed, and not a whole line yet
        venv = str(deployment.virtualenv)
        self._python = f"{venv}/bin/python"
        self._env = {
            "VIRTUAL_ENV": venv,  # a release of an older deploykit has neither in its environment
            "PATH": f"{venv}/bin:{ENVIRONMENT['PATH']}",
            **deployment.environment(slot, make=True),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def __enter__(self) -> Management:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; the next command begins another."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_PATIENCE)
        if child.poll() is None:  # a thread of the project's that does not end
            end_group(child, patience=0)
        child.stdout.close()
        self._rest = b""

    def run(self, *words: str, check: bool = True, quiet: bool = False) -> tuple[int, str]:
        """`manage.py WORDS`: (exit status, what it printed). Raises Failed when `check` and it failed."""
        status, output = self._send("", words, quiet=quiet)
        if check and status != 0:
            raise self.failed(words, status, output)
        return status, output

    def failed(self, words: tuple[str, ...], status: int, output: str) -> Failed:
        """The error that such a command is."""
        by = "manage.py" if (self._deployment.code / "manage.py").exists() else "-m django"
        return Failed(
            f"`python {' '.join((by, *words)[:3])}` of {self._deployment.app} ended with {status}",
            tail(output),
            "correct the app and deploy again; the live release is untouched",
        )

    def shell(self, command: str, *, timeout: float) -> tuple[int, str]:
        """A command of the user's by the shell, as the app: (exit status, what it printed). `timeout` in seconds.

        Raises TimedOut.
        """
        done = run(
            ["/bin/sh", "-ec", self._deployment.command(command, self._slot)],
            user=self._deployment.app,
            env=self._env,
            whole=True,
            cwd=str(self._deployment.code),
            check=False,
            timeout=timeout,
        )
        return done.returncode, f"{done.stdout}{done.stderr}"

    def settings(self) -> dict[str, str]:
        """Where Django keeps static files, media and SQLite, with all that manage.py itself does to the settings."""
        self.run("version", check=False, quiet=True)
        _, output = self._send(_ASK, (), quiet=True)
        for line in output.splitlines():
            if line.startswith("deploykit:"):
                return self._checked(line.removeprefix("deploykit:"))
        raise Failed(
            f"the settings of {self._deployment.app} cannot be imported",
            tail(output),
            f"correct the settings or their environment ([apps.{self._deployment.app}.env]) and deploy again; "
            "the live release is untouched",
        )

    def _checked(self, text: str) -> dict[str, str]:
        """The answer of `_ASK`, when it is one: the app's own code may have printed what looks like it."""
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and set(answer) == set(_SETTINGS) and all(map(_usable, answer.values())):
            return answer
        app = self._deployment.app
        raise Failed(
            f"the settings of {app} give unusable paths for static files, media or SQLite",
            f"expected printable absolute paths, got {text[:500]!r}",
            "correct STATIC_ROOT, MEDIA_ROOT and DATABASES in it and deploy again; the live release is untouched",
        )

    def error(self, health: Health) -> str:
        """The traceback of a page that answers 5xx; "" when it does not fail here."""
        done = app_command.run(
            self._deployment,
            [self._python, "-c", _ERROR, health.path, health.host, health.scheme],
            called=f"GET {health.path}",
            env=self._env,
            whole=True,
            cwd=str(self._deployment.code),
            check=False,
            output=lambda line: None,
        )
        return tail(done.stdout) if "Traceback" in done.stdout else ""

    def _send(self, code: str, words: tuple[str, ...], *, quiet: bool) -> tuple[int, str]:
        child = self._child = self._child or self._begin()
        assert child.stdin is not None and child.stdout is not None
        mark = f"deploykit-{secrets.token_hex(8)}:"
        try:
            child.stdin.write(json.dumps([mark, code, words]).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: what it said of that is still there to read
        lines = LastLines()
        tell = app_command.bounded((lambda line: None) if quiet else self._tell)

        def hear(text: str) -> None:
            lines.append(text)
            tell(text)

        try:
            for _, piece in pieces(child, timeout=self._deployment.command_timeout):
                *whole, self._rest = (self._rest + piece).split(b"\n")
                if len(self._rest) > _LONGEST:
                    whole, self._rest = [*whole, self._rest], b""
                for number, raw in enumerate(whole):
                    text, end, status = raw.decode("utf-8", "replace").partition(mark)
                    if end and re.fullmatch(r"-?\d{1,9}", status):
                        if text:
                            hear(text)
                        self._rest = b"\n".join([*whole[number + 1 :], self._rest])
                        if status != "0":
                            self.close()
                        return int(status), lines.text()
                    hear(text + end + status)
        except TimedOut as late:
            self.close()
            called = " ".join(("manage.py", *words)[:3]) if words else "manage.py"
            raise app_command.too_long(self._deployment, called, late.seconds) from None
        if self._rest:
            hear(self._rest.decode("utf-8", "replace"))
        self.close()
        return child.returncode or 1, lines.text()  # it left in the midst of it, by os._exit or a signal

    def _begin(self) -> subprocess.Popen[bytes]:
        environment, identity = as_user(self._deployment.app, self._env, whole=True)
        try:
            return subprocess.Popen(
                [self._python, "-c", _DRIVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=str(self._deployment.code),
                pass_fds=kept(self._deployment.app),
                start_new_session=True,  # so that it can be ended with all that it has started
                **identity,
            )
        except FileNotFoundError as error:
            raise Failed(f"{self._python} is not on the host", str(error)) from None
