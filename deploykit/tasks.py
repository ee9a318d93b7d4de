"""The commands: parse, call, show. `from deploykit.tasks import *` in a fabfile makes them `fab` tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.exceptions import Exit

from deploykit import tables
from deploykit.errors import DeploykitError
from deploykit.screen import Screen
from deploykit.task import ahead, chosen_apps, chosen_hosts, command, failures, names, the_project
from deploykit.tasks_app import local, logs, manage, restart, run, secrets_, shell

__all__ = [
    "add_app",
    "deploy",
    "init",
    "local",
    "logs",
    "manage",
    "plan",
    "remove_app",
    "restart",
    "rollback",
    "run",
    "sandbox_",
    "schema",
    "secrets_",
    "shell",
    "status",
]


def _converge(
    context: Any, host: str, app: str, operation: str, screen: Callable[[bool], Screen]
) -> tuple[Screen, Any, list[Any]]:
    opened = ahead(context, host)
    from deploykit.config import resolve
    from deploykit.operations import Session, each

    project = the_project()
    entries = chosen_hosts(context, project, host)
    only = chosen_apps(project, app)
    project = resolve(project)
    show = screen(len(entries) > 1)
    for warning in project.warnings:
        for line in warning.lines(str(project.file)):
            show.line(line, "yellow")
    outcomes = each(entries, lambda entry: Session(project, entry, show, opened).converge(operation, only))
    show.stop()
    return show, project, outcomes


@command(
    help={
        "host": "host of deploykit.toml, several with commas, or any ssh target",
        "app": "deploy the code of these apps only (commas between)",
        "verbose": "show every change and what commands print",
    }
)
def deploy(context: Any, host: str = "", app: str = "", verbose: bool = False) -> None:
    """Make the host as deploykit.toml says: what it needs, then the code of its apps."""
    show, project, outcomes = _converge(context, host, app, "apply", lambda many: Screen(several=many, verbose=verbose))
    for outcome in outcomes:
        show.notes(outcome.host, outcome.notes, warnings=True)
        if outcome.ok and not outcome.changed:
            show.line("nothing to do", "green", outcome.host)
    tables.receipt(show, project, [outcome for outcome in outcomes if outcome.deployed])
    if failures(show, outcomes):
        raise Exit(code=1)


@command(
    help={
        "host": "host of deploykit.toml, several with commas, or any ssh target",
        "app": "plan the code of these apps only (commas between)",
        "json": "print the plan as JSON",
        "verbose": "show the content of new files, too",
    }
)
def plan(context: Any, host: str = "", app: str = "", json: bool = False, verbose: bool = False) -> None:
    """Show exactly what `deploy` would change. Exit 0: nothing, 2: changes, 1: an error."""
    show, _, outcomes = _converge(
        context, host, app, "plan", lambda many: Screen(several=many, verbose=verbose, quiet=json)
    )
    failed = failures(show, outcomes)
    if json:
        _print_json({each.host: {k: each.plan.get(k, []) for k in ("changes", "kept")} for each in outcomes})
    else:
        for outcome in outcomes:
            show.notes(outcome.host, (*outcome.notes, *(outcome.asides if verbose else ())))
            if outcome.plan.get("changes") or (outcome.plan and outcome.ok):  # no "nothing to do" below an error
                show.plan(outcome.host, outcome.plan)
    if failed:
        raise Exit(code=1)
    if not all(outcome.empty for outcome in outcomes):
        raise Exit(code=2)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@command(help={"host": "host of deploykit.toml, several with commas, or any ssh target", "json": "print JSON"})
def status(context: Any, host: str = "", json: bool = False) -> None:
    """Show a host's apps, releases, processes, memory and disk at a glance."""
    opened = ahead(context, host)
    from deploykit.operations import Session, each

    project = the_project()
    entries = chosen_hosts(context, project, host)
    show = Screen(several=len(entries) > 1, quiet=json)
    outcomes = each(entries, lambda entry: Session(project, entry, show, opened).ask({"operation": "status"}))
    if json:
        _print_json({outcome.host: outcome.answer for outcome in outcomes})
    for outcome in outcomes:
        if outcome.answer:
            tables.status(show, outcome.host, outcome.answer)
    if failures(show, outcomes):
        raise Exit(code=1)


@command(
    help={"host": "the host", "app": "the app", "release": "a release that `fab status` lists; default: the one before"}
)
def rollback(context: Any, app: str, host: str = "", release: str = "") -> None:
    """Bring the release before the live one back, with the environment it had. Migrations are not undone."""
    from deploykit.operations import Session, each

    project = the_project()
    project.app(app)
    entries = chosen_hosts(context, project, host)
    show = Screen(several=len(entries) > 1)
    request = {"operation": "rollback", "app": app, "release": release}
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    show.stop()
    if failures(show, outcomes):
        raise Exit(code=1)
    show.line("the next `fab deploy` brings the newer code again; migrations were not undone", "yellow")


@command()
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


@command(
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
    project = the_project()
    show = Screen()
    for line in additions.add(project, name, source, names(domain) or [], ref):
        show.line(line)
    show.line("next: fab plan, then fab deploy")


@command(
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

    project = the_project()
    entries = chosen_hosts(context, project, host)
    show = Screen(several=len(entries) > 1)
    if delete_data and not yes and not show.confirm(f"This destroys the database, media and data of {name}.", name):
        raise DeploykitError("nothing was removed", "remove-app", "type the app's name, or say --yes")
    request = {"operation": "leave", "app": name, "erase": delete_data}
    outcomes = each(entries, lambda entry: Session(project, entry, show).ask(request))
    show.stop()
    if failures(show, outcomes):
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


@command(
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


@command()
def schema(context: Any) -> None:
    """Print the JSON schema of deploykit.toml, for editors."""
    from deploykit.config.schema import schema as made

    _print_json(made())
