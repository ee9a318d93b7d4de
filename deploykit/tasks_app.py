"""The everyday commands of one app: its manage.py, shells, logs, restarts, secrets, and the app on your machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from invoke.exceptions import Exit

from deploykit import tables
from deploykit.errors import DeploykitError
from deploykit.screen import Screen
from deploykit.task import chosen_hosts, command, failures, one_app, one_host, the_project

#: A project that is an installed package has no manage.py.
_MANAGE = (
    "/bin/sh",
    "-c",
    'if test -e manage.py; then set -- manage.py "$@"; else set -- -m django "$@"; fi; exec python "$@"',
    "manage",
)
_ONE = {"app": "the app; may be left out when the file has one", "host": "the host; one"}


@command(help={**_ONE, "cmd": "the command of manage.py and its arguments, in quotes"})
def manage(context: Any, app: str = "", cmd: str = "help", host: str = "") -> None:
    """Run a command of manage.py on the host, with a terminal, or with what is piped in: --cmd "createsuperuser"."""
    _inside(context, app, host, [*_MANAGE, *_words(cmd)])


@command(help={**_ONE, "bash": "a shell of the app's user instead of Django's"})
def shell(context: Any, app: str = "", host: str = "", bash: bool = False) -> None:
    """Open Django's shell on the host, or with --bash one of the app's user in the folder of manage.py."""
    _inside(context, app, host, ["bash"] if bash else [*_MANAGE, "shell"])


@command(help={**_ONE, "cmd": "the command, as a shell takes it"})
def run(context: Any, app: str = "", cmd: str = "", host: str = "") -> None:
    """Run any command on the host as the app: its user, its environment, the folder of manage.py."""
    if not cmd.strip():
        raise DeploykitError("which command?", "run", 'fab run --app NAME --cmd "python -V"')
    _inside(context, app, host, ["/bin/sh", "-c", cmd])


def _words(cmd: str) -> list[str]:
    try:
        return shlex.split(cmd)
    except ValueError as error:
        raise DeploykitError(f"cannot be split into words: {str(error).lower()}", "--cmd", "close the quotes") from None


def _inside(context: Any, app: str, host: str, words: Sequence[str]) -> None:
    from deploykit import inside

    project = the_project()
    name = one_app(project, app)
    entry = one_host(context, project, host, name)
    status = inside.run(entry, name, words, Screen())
    if status:
        raise Exit(code=status)


@command(
    help={
        "app": _ONE["app"],
        "host": "the host, several with commas",
        "process": "a process or schedule by its name; default: the web server",
        "nginx": "the access and error logs of nginx instead",
        "lines": "how many of the last lines",
        "since": "everything since: 10m, 2h, 3d, or a time such as 2026-01-31T12:00",
        "follow": "go on until Ctrl-C, over deploys, too",
    }
)
def logs(
    context: Any,
    app: str = "",
    host: str = "",
    process: str = "",
    lines: int = 200,
    since: str = "",
    follow: bool = False,
    nginx: bool = False,
) -> None:
    """Show what an app's processes say."""
    from deploykit.operations import Session, each_apart
    from deploykit.since import read

    project = the_project()
    name = one_app(project, app)
    if lines < 0:
        raise DeploykitError(f"{lines} is no number of lines", "--lines", "0 or more")
    request = {"operation": "logs", "app": name, "process": process, "nginx": nginx, "lines": lines, "follow": follow}
    request |= read(since) if since else {}
    entries = chosen_hosts(context, project, host)
    show = Screen(several=len(entries) > 1)
    try:
        outcomes = each_apart(entries, lambda entry: Session(project, entry, show).ask(request))
    except KeyboardInterrupt:
        raise Exit(code=0 if follow else 130) from None
    if failures(show, outcomes):
        raise Exit(code=1)


@command(help={"app": _ONE["app"], "host": "the host, several with commas", "process": "only what runs by this name"})
def restart(context: Any, app: str = "", host: str = "", process: str = "") -> None:
    """Run the live release in new processes; no request is dropped, workers finish what they hold."""
    from deploykit.operations import Session, each

    project = the_project()
    request = {"operation": "restart", "app": one_app(project, app), "process": process}
    entries = chosen_hosts(context, project, host)
    show = Screen(several=len(entries) > 1)
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    show.stop()
    if failures(show, outcomes):
        raise Exit(code=1)


@command(
    help={
        "app": _ONE["app"],
        "cmd": "a command to run in its place, as a shell takes it",
        "port": "the port of 127.0.0.1; default: 8000, or the next free one",
        "postgres": "use this machine's PostgreSQL instead of SQLite",
    }
)
def local(context: Any, app: str = "", cmd: str = "", port: int = 0, postgres: bool = False) -> None:
    """Run the app on your own machine, with runserver and SQLite, under the same environment names as on a host."""
    from deploykit import local as here

    project = the_project()
    name = one_app(project, app)
    if not 0 <= port <= 65535:
        raise DeploykitError(f"{port} is no port", "--port", "a number from 1 to 65535")
    show = Screen()
    status = here.run(project, name, show.line, show.password, command=cmd, port=port, postgres=postgres)
    if status:
        raise Exit(code=status)


@command(
    help={"action": "set, unset or list", "host": "the host", "app": "the app", "name": "the secret's name"},
    positional=["action"],
    name="secrets",
)
def secrets_(context: Any, action: str, app: str = "", name: str = "", host: str = "") -> None:
    """Keep secrets on the host: `secrets set|unset|list --app APP --name NAME`; the value is from stdin or a prompt."""
    from deploykit.operations import Session, each

    project = the_project()
    app = one_app(project, app)
    _check_secret(action, app, name)
    entries = chosen_hosts(context, project, host)
    show = Screen(several=len(entries) > 1)
    change: dict[str, Any] = {}
    if action == "set":
        change = {"set": {name: _value(show, name)}}
    elif action == "unset":
        change = {"set": {name: None}}
    request = {"operation": "secrets", "app": app, **change}
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    for outcome in outcomes:
        if outcome.ok:
            tables.secrets(show, outcome.host, project.app(app), outcome.answer)
    failed = failures(show, outcomes)
    if action != "list" and not failed:
        show.line("`fab deploy` brings it to the app")
    if failed:
        raise Exit(code=1)


def _check_secret(action: str, app: str, name: str) -> None:
    from deploykit.config.names import secret_name_mistake

    if action not in ("set", "unset", "list"):
        raise DeploykitError(f"there is no `secrets {action}`", todo="set, unset or list")
    if action != "list" and not name:
        raise DeploykitError("which secret?", todo=f"fab secrets {action} --app {app} --name NAME")
    if action == "set" and (mistake := secret_name_mistake(name)):
        raise DeploykitError(mistake, "--name", "letters, digits and _, not beginning with a digit")


def _value(show: Screen, name: str) -> str:
    if sys.stdin.isatty():
        value = show.password(f"value of {name}")
    else:
        value = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not value:
        raise DeploykitError(f"there is no value for {name}", "standard input", "nothing was changed")
    if "\0" in value:
        raise DeploykitError("the value has a NUL character, which no environment can hold", "standard input")
    return value
