"""What every command shares: errors in plain words, and which project, hosts and apps are meant."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from invoke.exceptions import Exit
from invoke.tasks import task

from deploykit.errors import DeploykitError
from deploykit.screen import Screen

F = TypeVar("F", bound=Callable[..., Any])

# Nearly everything that a command makes, it needs to the end: looking for garbage among modules that are just being
# loaded, and once more when all is over (`freeze` below), took an eighth of a command's time.
gc.set_threshold(100_000, 20, 20)


def command(**options: Any) -> Callable[[F], Any]:
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
            except BrokenPipeError:  # whoever read what we print has had enough (`| head`)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                raise Exit(code=141) from None
            except KeyboardInterrupt:
                print("\ninterrupted; what had begun on a host goes on there", file=sys.stderr)
                raise Exit(code=130) from None
            finally:
                gc.freeze()

        return task(auto_shortflags=False, **options)(run)

    return decorate


def _help(name: str) -> None:
    """For `fab sandbox --help`: Invoke takes the word for the action, so the program runs anew, words turned."""
    os.execv(sys.executable, [sys.executable, sys.argv[0], "--help", name])


def names(text: str) -> list[str] | None:
    """The names between commas; None when there is none."""
    return [each.strip() for each in text.split(",") if each.strip()] or None


def the_file() -> Path:
    """The deploykit.toml of this folder, or of one above it. Raises DeploykitError."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "deploykit.toml").is_file():
            # By its name alone where that says enough: errors quote it.
            return Path("deploykit.toml") if folder == Path.cwd() else folder / "deploykit.toml"
    raise DeploykitError("there is no deploykit.toml here", str(Path.cwd()), "write one with: deploykit init")


def the_project() -> Any:
    """What that file says."""
    from deploykit.config import load

    return load(the_file())


def ahead(context: Any, host: str) -> Any:
    """Begins to open the connections that this command will probably need. The first thing that it does."""
    from deploykit.opening import Ahead

    return Ahead(the_file(), _meant(context, host))


def chosen_hosts(context: Any, project: Any, host: str) -> Any:
    """The hosts a command is for: --host, or Fabric's own -H."""
    from deploykit.config import choose

    return choose(project, _meant(context, host))


def _meant(context: Any, host: str) -> str:
    return host or str(getattr(context, "original_host", "") or "")


def chosen_apps(project: Any, app: str) -> list[str] | None:
    """The apps that `--app` names; None: all. Raises DeploykitError for one that is not in the file."""
    chosen = names(app)
    for name in chosen or ():
        project.app(name)
    return chosen


def one_app(project: Any, app: str) -> str:
    """The one app that a command is for: `--app`, or the only one of the file."""
    if not app and len(project.names) == 1:
        return str(project.names[0])
    if not names(app):
        listed = ", ".join(project.names) or "none yet"
        raise DeploykitError("which app?", str(project.file), f"say --app NAME; apps in the file: {listed}")
    if "," in app:
        raise DeploykitError(f"{app} are several apps", "--app", "this command is for one at a time")
    return str(project.app(app.strip()).name)


def one_host(context: Any, project: Any, host: str, app: str) -> Any:
    """The one host that a command is for: `--host`, or the only one of the file that runs the app."""
    text = _meant(context, host)
    if not text:
        those = [each for each in project.hosts if project.app(app) in project.apps_of(each)]
        if len(those) == 1:
            return those[0]
        if len(those) > 1:
            listed = ", ".join(each.name for each in those)
            raise DeploykitError(
                f"{app} runs on {len(those)} hosts", str(project.file), f"say --host, one of: {listed}"
            )
    found = chosen_hosts(context, project, text)
    if len(found) > 1:
        raise DeploykitError(f"{text} are {len(found)} hosts", "--host", "this command is for one at a time")
    if found[0].listed and project.app(app) not in project.apps_of(found[0]):
        raise DeploykitError(f"{app} does not run on host {found[0].name}", str(project.file), "say another --host")
    return found[0]


def failures(show: Screen, outcomes: Sequence[Any]) -> bool:
    """Shows what went wrong; whether anything did."""
    for outcome in outcomes:
        if outcome.error is not None:
            show.failure(outcome.error)
    return any(not outcome.ok for outcome in outcomes)
