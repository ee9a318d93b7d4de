"""The commands: parse, call, show. `from deploykit.tasks import *` in a fabfile makes them `fab` tasks."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from invoke.exceptions import Exit
from invoke.tasks import task

from deploykit import tables
from deploykit.errors import DeploykitError
from deploykit.screen import Screen

__all__ = [
    "add_app",
    "deploy",
    "init",
    "plan",
    "remove_app",
    "rollback",
    "sandbox_",
    "schema",
    "secrets_",
    "status",
]

F = TypeVar("F", bound=Callable[..., Any])


def _command(**options: Any) -> Callable[[F], Any]:
    """A task whose errors are said in plain words, with exit status 1. No short flags: `-h` is for help."""

    def decorate(function: F) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            from deploykit.sandbox import SandboxError

            if {"--help", "-h"} & {each for each in (*args, *kwargs.values()) if isinstance(each, str)}:
                _help(options.get("name", function.__name__))
            try:
                function(*args, **kwargs)
            except DeploykitError as error:
                Screen().failure(error)
                raise Exit(code=1) from None
            except SandboxError as error:
                Screen().failure(DeploykitError(error.what, error.where, error.todo))
                raise Exit(code=1) from None
            except KeyboardInterrupt:
                print("\ninterrupted; what had begun on a host goes on there", file=sys.stderr)
                raise Exit(code=130) from None

        return task(auto_shortflags=False, **options)(run)

    return decorate


def _help(name: str) -> None:
    """For `fab sandbox --help`: Invoke takes the word for the action, so the program runs anew, words turned."""
    os.execv(sys.executable, [sys.executable, sys.argv[0], "--help", name])


def _names(text: str) -> list[str] | None:
    return [each.strip() for each in text.split(",") if each.strip()] or None


def _project() -> Any:
    from deploykit.config import load

    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "deploykit.toml").is_file():
            # By its name alone where that says enough: errors quote it.
            return load("deploykit.toml" if folder == Path.cwd() else folder)
    raise DeploykitError("there is no deploykit.toml here", str(Path.cwd()), "write one with: deploykit init")


def _entries(context: Any, project: Any, host: str) -> Any:
    """The hosts a command is for: --host, or Fabric's own -H."""
    from deploykit.config import choose

    return choose(project, host or str(getattr(context, "original_host", "") or ""))


def _apps(project: Any, app: str) -> list[str] | None:
    names = _names(app)
    for name in names or ():
        project.app(name)
    return names


def _converge(
    context: Any, host: str, app: str, operation: str, screen: Callable[[bool], Screen]
) -> tuple[Screen, list[Any]]:
    from deploykit.config import resolve
    from deploykit.operations import Session, each

    project = _project()
    entries = _entries(context, project, host)
    only = _apps(project, app)
    project = resolve(project)
    show = screen(len(entries) > 1)
    for warning in project.warnings:
        for line in warning.lines(str(project.file)):
            show.line(line, "yellow")
    outcomes = each(entries, lambda entry: Session(project, entry, show).converge(operation, only))
    show.stop()
    return show, outcomes


def _failures(show: Screen, outcomes: Sequence[Any]) -> bool:
    for outcome in outcomes:
        if outcome.error is not None:
            show.failure(outcome.error)
    return any(not outcome.ok for outcome in outcomes)


@_command(
    help={
        "host": "host of deploykit.toml, several with commas, or any ssh target",
        "app": "deploy the code of these apps only (commas between)",
        "verbose": "show every change and what commands print",
    }
)
def deploy(context: Any, host: str = "", app: str = "", verbose: bool = False) -> None:
    """Make the host as deploykit.toml says: what it needs, then the code of its apps."""
    show, outcomes = _converge(context, host, app, "apply", lambda many: Screen(several=many, verbose=verbose))
    for outcome in outcomes:
        show.notes(outcome.host, outcome.notes, warnings=True)
        if outcome.ok and not outcome.changed:
            show.line("nothing to do", "green", outcome.host)
    tables.receipt(show, _project(), [outcome for outcome in outcomes if outcome.deployed])
    if _failures(show, outcomes):
        raise Exit(code=1)


@_command(
    help={
        "host": "host of deploykit.toml, several with commas, or any ssh target",
        "app": "plan the code of these apps only (commas between)",
        "json": "print the plan as JSON",
        "verbose": "show the content of new files, too",
    }
)
def plan(context: Any, host: str = "", app: str = "", json: bool = False, verbose: bool = False) -> None:
    """Show exactly what `deploy` would change. Exit 0: nothing, 2: changes, 1: an error."""
    show, outcomes = _converge(
        context, host, app, "plan", lambda many: Screen(several=many, verbose=verbose, quiet=json)
    )
    failed = _failures(show, outcomes)
    if json:
        _print_json({each.host: {k: each.plan.get(k, []) for k in ("changes", "kept")} for each in outcomes})
    else:
        for outcome in outcomes:
            show.notes(outcome.host, outcome.notes)
            if outcome.plan.get("changes") or (outcome.plan and outcome.ok):  # no "nothing to do" below an error
                show.plan(outcome.host, outcome.plan)
    if failed:
        raise Exit(code=1)
    if not all(outcome.empty for outcome in outcomes):
        raise Exit(code=2)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@_command(help={"host": "host of deploykit.toml, several with commas, or any ssh target", "json": "print JSON"})
def status(context: Any, host: str = "", json: bool = False) -> None:
    """Show a host's apps, releases, processes, memory and disk at a glance."""
    from deploykit.operations import Session, each

    project = _project()
    entries = _entries(context, project, host)
    show = Screen(several=len(entries) > 1, quiet=json)
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask({"operation": "status"}))
    if json:
        _print_json({outcome.host: outcome.answer for outcome in outcomes})
    for outcome in outcomes:
        if outcome.answer:
            tables.status(show, outcome.host, outcome.answer)
    if _failures(show, outcomes):
        raise Exit(code=1)


@_command(
    help={"host": "the host", "app": "the app", "release": "a release that `fab status` lists; default: the one before"}
)
def rollback(context: Any, app: str, host: str = "", release: str = "") -> None:
    """Bring the release before the live one back, with the environment it had. Migrations are not undone."""
    from deploykit.operations import Session, each

    project = _project()
    project.app(app)
    entries = _entries(context, project, host)
    show = Screen(several=len(entries) > 1)
    request = {"operation": "rollback", "app": app, "release": release}
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    show.stop()
    if _failures(show, outcomes):
        raise Exit(code=1)
    show.line("the next `fab deploy` brings the newer code again; migrations were not undone", "yellow")


@_command(
    help={"action": "set, unset or list", "host": "the host", "app": "the app", "name": "the secret's name"},
    positional=["action"],
    name="secrets",
)
def secrets_(context: Any, action: str, app: str, name: str = "", host: str = "") -> None:
    """Keep secrets on the host: `secrets set|unset|list --app APP --name NAME`; the value is from stdin or a prompt."""
    from deploykit.operations import Session, each

    if action not in ("set", "unset", "list"):
        raise DeploykitError(f"there is no `secrets {action}`", todo="set, unset or list")
    if action != "list" and not name:
        raise DeploykitError("which secret?", todo=f"fab secrets {action} --app {app} --name NAME")
    project = _project()
    project.app(app)
    entries = _entries(context, project, host)
    show = Screen(several=len(entries) > 1)
    change: dict[str, Any] = {}
    if action == "set":
        value = show.password(f"value of {name}") if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
        change = {"set": {name: value}}
    elif action == "unset":
        change = {"set": {name: None}}
    request = {"operation": "secrets", "app": app, **change}
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    for outcome in outcomes:
        names = outcome.answer.get("names", [])
        show.line(f"{app}: {', '.join(names) if names else 'no secrets'}", "", outcome.host)
    if action != "list":
        show.line("`fab deploy` brings it to the app")
    if _failures(show, outcomes):
        raise Exit(code=1)


@_command()
def init(context: Any) -> None:
    """Write a commented deploykit.toml, a fabfile.py and lines for .gitignore; nothing that is there is touched."""
    from deploykit import edit

    show = Screen()
    for name, text in (("deploykit.toml", edit.init_text()), ("fabfile.py", edit.fabfile_text())):
        if Path(name).exists():
            show.line(f"{name} is there already and stays as it is", "yellow")
        else:
            Path(name).write_text(text)
            show.line(f"wrote {name}", "green")
    ignore = Path(".gitignore")
    before = ignore.read_text() if ignore.exists() else ""
    after = edit.gitignore_text(before)
    if after != before:
        ignore.write_text(after)
        show.line("added lines to .gitignore", "green")
    show.line("next: fab add-app NAME --source FOLDER --domain DOMAIN")


@_command(
    help={
        "name": "the app's name: lower-case letters, digits, -",
        "source": "folder or git URL of the Django project",
        "domain": "its domains, commas between",
        "ref": "branch, tag or commit of a git source",
    },
    positional=["name"],
    name="add-app",
)
def add_app(context: Any, name: str, source: str = "", domain: str = "", ref: str = "") -> None:
    """Add an app to deploykit.toml: reads the Django project and writes what it finds."""
    from deploykit import additions

    if not source or not domain:
        lacks = "--source FOLDER" if not source else "--domain DOMAIN"
        raise DeploykitError(
            f"{lacks} is missing", "add-app", f"fab add-app {name} --source ../{name} --domain {name}.example"
        )
    project = _project()
    show = Screen()
    for line in additions.add(project, name, source, _names(domain) or [], ref):
        show.line(line)
    show.line("next: fab plan, then fab deploy")


@_command(
    help={
        "name": "the app",
        "host": "the host it leaves",
        "delete-data": "also destroy its database, media and data, after a dump of the database",
        "yes": "do not ask",
    },
    positional=["name"],
    name="remove-app",
)
def remove_app(context: Any, name: str, host: str = "", delete_data: bool = False, yes: bool = False) -> None:
    """Take an app off the host and out of deploykit.toml. Its data stays unless --delete-data."""
    from deploykit import additions
    from deploykit.operations import Session, each

    project = _project()
    entries = _entries(context, project, host)
    show = Screen(several=len(entries) > 1)
    if delete_data and not yes and not show.confirm(f"This destroys the database, media and data of {name}.", name):
        raise DeploykitError("nothing was removed", "remove-app", "type the app's name, or say --yes")
    request = {"operation": "leave", "app": name, "erase": delete_data}
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    show.stop()
    if _failures(show, outcomes):
        raise Exit(code=1)
    if name in project.names:
        additions.remove(project, name)
    elif not any(outcome.answer.get("found") for outcome in outcomes):
        raise DeploykitError(f"nothing of {name} is on the host, nor in {project.file}", "remove-app")
    dumps = [place for outcome in outcomes for place in outcome.answer.get("dumps", [])]
    kept = "its data is destroyed" + (f"; dumped to {', '.join(dumps)} on the host" if dumps else "")
    show.line(
        f"{name} is gone; {kept if delete_data else 'its database, media, data and backups stay on the host'}", "green"
    )


@_command(
    help={"action": "up, down, reset or list", "name": "the sandbox's name"}, positional=["action"], name="sandbox"
)
def sandbox_(context: Any, action: str, name: str = "sandbox") -> None:
    """Throw-away hosts on this machine: `sandbox up|down|reset|list` (needs root on Debian or Ubuntu)."""
    from deploykit import sandbox

    show = Screen()

    def tell(text: str) -> None:
        show.line(text, "dim")

    if action == "up":
        host = sandbox.up(name, install=True, progress=tell)
        show.line(f"{name} is up at {host.address}; `fab deploy --host {name}` deploys to it", "green")
    elif action == "down":
        sandbox.down(name, progress=tell)
        show.line(f"{name} is thrown away", "green")
    elif action == "reset":
        sandbox.reset(name, progress=tell)
        show.line(f"{name} is pristine again", "green")
    elif action == "list":
        rows = [[each.name, each.address, "running" if each.running else "stopped"] for each in sandbox.every()]
        if rows:
            show.table("", ["name", "address", "state"], rows)
        else:
            show.line("no sandboxes; `fab sandbox up` boots one")
    else:
        raise DeploykitError(f"there is no `sandbox {action}`", todo="up, down, reset or list")


@_command()
def schema(context: Any) -> None:
    """Print the JSON schema of deploykit.toml, for editors."""
    from deploykit.config.schema import schema as made

    _print_json(made())
