"""Values that come from the user's environment or a command, fetched at the controller before anything else."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deploykit.agent.secret import Secret
from deploykit.config.models import FromCommand, FromEnv
from deploykit.config.project import AppEntry, Project, Wanted
from deploykit.config.toml import located
from deploykit.errors import ConfigError, DeploykitError, Problem

#: (words, folder) -> what the command printed. Raises DeploykitError when it failed.
RunCommand = Callable[[Sequence[str], Path], str]


def run(words: Sequence[str], folder: Path) -> str:
    """Runs a command on this machine without a shell; the terminal stays its own (it may ask for a passphrase).

    Raises DeploykitError with its last line of complaint. What it printed is a secret and never shown.
    """
    try:
        done = subprocess.run(list(words), cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise DeploykitError(f"{words[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise DeploykitError(f"{words[0]} failed with {done.returncode}" + (f": {said[-1][:200]}" if said else ""))
    try:
        return done.stdout.decode("utf-8")
    except UnicodeDecodeError:
        raise DeploykitError(f"{words[0]} printed something that is not UTF-8") from None


def resolve(
    project: Project,
    environ: Mapping[str, str] | None = None,
    run_command: RunCommand = run,
    apps: Collection[str] | None = None,
) -> Project:
    """The project with every { env } and { command } replaced by a Secret; of `apps` only, when given.

    Each command runs once, however often it stands in the file. Raises ConfigError with all that is missing.
    """
    fetch = _Fetch(os.environ if environ is None else environ, run_command, project.folder)
    done = tuple(fetch.app(app) if apps is None or app.name in apps else app for app in project.apps)
    if fetch.problems:
        raise ConfigError(located(fetch.problems, project.file), str(project.file))
    return replace(project, apps=done)


class _Fetch:
    def __init__(self, environ: Mapping[str, str], run_command: RunCommand, folder: Path) -> None:
        self.environ, self.run, self.folder = environ, run_command, folder
        self.problems: list[Problem] = []
        self.printed: dict[str, Secret | str] = {}  # command -> its output, or what went wrong

    def app(self, app: AppEntry) -> AppEntry:
        env = {name: self.value(value, f"apps.{app.name}.env", name) for name, value in app.env.items()}
        database = app.database
        if database.url is not None:
            database = replace(database, url=self.value(database.url, f"apps.{app.name}", "database"))
            if isinstance(database.url, Secret) and database.url != app.database.url:
                text = database.url.reveal()
                if text and "://" not in text:
                    self.problem(
                        f"apps.{app.name}",
                        "database",
                        "the value fetched is no URL",
                        "scheme://user:password@host/name",
                    )
        users = {
            name: self.value(value, f"apps.{app.name}.nginx.basic_auth", name) for name, value in app.users.items()
        }
        for name, value in app.users.items():
            if isinstance(value, FromEnv) and self.environ.get(value.env) == "":
                where = f"apps.{app.name}.nginx.basic_auth"
                self.problem(where, name, f"{value.env} is empty: anybody could guess such a password", "a long one")
        return replace(app, env=env, database=database, users=users)

    def value(self, value: Wanted, table: str, key: str) -> Wanted:
        if isinstance(value, FromEnv):
            text = self.environ.get(value.env)
            if text is None:
                self.problem(table, key, f"{value.env} is not set in your environment", f"export {value.env}=... first")
            return Secret(text or "")
        if isinstance(value, FromCommand):
            if value.command not in self.printed:
                self.printed[value.command] = self.command(value.command)
            found = self.printed[value.command]
            if isinstance(found, str):
                self.problem(table, key, found, "a command that prints the value and ends with 0")
                return Secret("")
            return found
        return value

    def command(self, command: str) -> Secret | str:
        try:
            words = shlex.split(command)
            text = self.run(words, self.folder)
        except ValueError as error:
            return f"the command cannot be split into words: {str(error).lower()}"
        except DeploykitError as error:
            return error.what
        text = text[:-1].removesuffix("\r") if text.endswith("\n") else text
        if not text:
            return f"{words[0]} printed nothing"
        return "the command printed a NUL character" if "\0" in text else Secret(text)

    def problem(self, table: str, key: str, what: str, allowed: str) -> None:
        self.problems.append(Problem(table, key, 0, what, allowed))
