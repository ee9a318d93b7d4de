"""What runs of an app: its web servers and its further processes, as supervisor keeps them in one of the two slots."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace

from deploykit.agent.deployment import Program
from deploykit.agent.resource import Failed, Render, Resource
from deploykit.agent.resources import File
from deploykit.agent.values import COMMAND_REFERENCE, App, Process, Value, Web
from deploykit.model import layout
from deploykit.recipes.replacing import replaced

WITH_ENV = "/usr/local/lib/deploykit/with-env"
IN_APP = "/usr/local/lib/deploykit/in-app"
DAPHNE = "/usr/local/lib/deploykit/run-daphne"

#: What the shell must stay for: a command that has none of it becomes the process itself, and gets its signals.
_COMPOUND = re.compile(r"[;&|<>()\n`]|^\s*(?:if|for|while|until|case|cd|export|set|exec|trap|\.)\b|^\s*\w+=")


def programs(app: App) -> tuple[Program, ...]:
    """The programs of a slot beside its main web server, in the order in which they are started."""
    return tuple(
        Program(
            f"{process.name}-{number}",
            process.once,
            process.steady,
            process.stop,
            process.name if process.web else "",
            (*process.paths, *(each.url for each in app.site.locations if each.process == process.name)),
        )
        for process, number in _numbers(app)
    )


def files(
    app: App, slot: str, folder: str, venv: str, names: Mapping[str, Value], render: Render, workers: int
) -> Iterator[Resource]:
    """The files of a slot: how its servers are set up, what its processes run, and supervisor's part."""
    if app.web.server == "gunicorn":
        main = replace(app.web, workers=workers)
        yield _gunicorn(app, main, slot, f"{app.name}.{slot}", render, port=0 if app.nginx else app.port)
    for process in app.processes:
        if process.web and process.web.server == "gunicorn":
            yield _gunicorn(app, process.web, slot, f"{app.name}.{slot}.{process.name}", render)
    code = f"{folder}/code/{app.code.root}".rstrip("/")

    def place(inside: str | None) -> str:
        return code if inside is None else f"{folder}/code/{inside}".rstrip("/")

    web = replace(app.web, workers=workers)
    commands = {"web": (code, server(web, f"{app.name}.{slot}"))}
    for process in app.processes:
        if process.web:
            words = server(process.web, f"{app.name}.{slot}.{process.name}")
            commands[process.name] = (place(process.folder), words)
        else:
            commands[process.name] = (place(process.folder), _command(app, process.name, process.command, names))
    for timed in app.schedule:
        commands[timed.name] = (place(timed.folder), _command(app, timed.name, timed.command, names))
    commands = {name: (shlex.quote(folder), words) for name, (folder, words) in commands.items()}
    text = render("app/run.sh.j2", app=app, slot=slot, commands=commands)
    yield File(f"/etc/deploykit/{app.name}.{slot}.run", text, group=app.user, mode=0o640, app=app.name)
    text = render(
        "app/supervisor.conf.j2",
        app=app,
        slot=slot,
        numbers=_numbers(app),
        signals=signals(app),
        launcher=layout.launcher(),
        folder=layout.sockets(app.name),
    )
    yield File(f"/etc/supervisor/conf.d/{app.name}-{slot}.conf", text, app=app.name)


def _numbers(app: App) -> list[tuple[Process, int]]:
    return [(process, number) for process in app.processes for number in range(1, process.count + 1)]


def signals(app: App) -> dict[str, int]:
    """Seconds in which each web server may answer what it has, by the process's name ("web": the app's own)."""
    found = {"web": app.web.timeout + 10}
    return found | {each.name: each.web.timeout + 10 for each in app.processes if each.web}


def _gunicorn(app: App, web: Web, slot: str, name: str, render: Render, port: int = 0) -> File:
    text = render("app/gunicorn.conf.py.j2", app=app, web=web, slot=slot, port=port)
    return File(f"/etc/deploykit/{name}.gunicorn.py", text, app=app.name)


def server(web: Web, name: str) -> str:
    """The command of a web server on the socket that it inherits as descriptor 3. gunicorn finds it by itself."""
    further = " ".join(shlex.quote(word) for word in web.args)
    if web.server == "uvicorn":
        command = (
            f"uvicorn --fd 3 --workers {web.workers} --proxy-headers --forwarded-allow-ips '*' "
            f"--timeout-graceful-shutdown {web.timeout}"
        )
    elif web.server == "daphne":
        command = f"python {DAPHNE} -e systemd:domain=UNIX:index=0 --proxy-headers"  # its --fd is for TCP alone
    else:
        command = f"gunicorn --config /etc/deploykit/{name}.gunicorn.py"
    return f"exec {command} {further} {web.application}".replace("  ", " ")


def command(app: App, about: str, text: str, names: Mapping[str, Value]) -> str:
    """A command with its references replaced. Raises Failed for one that would show a secret to the whole host."""
    found = replaced(text, names, COMMAND_REFERENCE)
    if not isinstance(found, str):
        raise Failed(
            f"the command {about} of app {app.name} has a secret in it: anybody on the host could see it",
            todo="let the command read it from the environment, where it is a variable already",
        )
    return found


def _command(app: App, about: str, text: str, names: Mapping[str, Value]) -> str:
    found = command(app, about, text, names).strip()
    return found if _COMPOUND.search(found) else f"exec {found}"
