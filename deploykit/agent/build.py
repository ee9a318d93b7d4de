"""Building a release and migrating its database: deploykit's own steps, and between them the commands of the user's.

A command of the user's runs as the app with the app's whole environment, in the new release's folder of manage.py.
Until the release is sealed it may write there; nothing that fails here touches what is live.
"""

from __future__ import annotations

import functools
import grp
import pwd
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploykit.agent import app_command, dump, paths, release, trees, virtualenv
from deploykit.agent.deployment import Deployment, record
from deploykit.agent.management import Management
from deploykit.agent.process import tail
from deploykit.agent.resource import Failed

Tell = Callable[[str], None]

#: What PostgreSQL, SQLite and MySQL say of a table that is not there.
_TABLES = re.compile(r'relation "\S+" does not exist|no such table: |\(1146, ')
#: How Python tells of a place that is somebody else's, or on a disk that may only be read (EPERM, EACCES, EROFS).
_REFUSED = re.compile(r"^(?:PermissionError|OSError): \[Errno (?:1|13|30)\] [^:]+: '([^']+)'", re.MULTILINE)
_LONGEST = 70  # characters of a command in a stage's name


class Steps:
    """The steps of one release in one slot. `stage(name)` is told before each, `tell(line)` what it prints."""

    def __init__(self, deployment: Deployment, slot: str, commands: Management, stage: Tell, tell: Tell) -> None:
        self._deployment, self._slot, self._commands = deployment, slot, commands
        self._stage, self._tell = stage, tell

    def build(self, listing: release.Listing) -> None:
        """All that makes a release of the code that was laid: it is sealed then. Raises Failed."""
        deployment, commands = self._deployment, self._commands
        account = pwd.getpwnam(deployment.app)
        self._hooks("after_checkout")
        if not virtualenv.complete(deployment):
            self._stage("virtualenv")
            virtualenv.install(deployment, self._tell)
        static = deployment.folder / "static"
        static.mkdir(mode=0o2750, exist_ok=True)
        shutil.chown(static, deployment.app, "www-data")
        static.chmod(0o2750)
        self._hooks("after_install")
        self._stage("compile")
        release.compile_all(deployment, len(listing))
        self._stage("check")
        settings = commands.settings()
        release.persist(deployment, settings)
        self._check()
        self._hooks("before_collectstatic")
        arguments = deployment.build.collectstatic
        if arguments is not None and settings["STATIC_ROOT"] and settings["staticfiles"]:
            self._stage("static files")
            self._collect(settings["STATIC_ROOT"], arguments)
        self._hooks("after_collectstatic")
        release.gather(deployment, settings["STATIC_ROOT"])
        # Django sets the mode of each folder it makes, without the set-group-id bit that hands www-data on.
        trees.take(static, account.pw_uid, account.pw_uid, grp.getgrnam("www-data").gr_gid, folders=0o2750)
        if deployment.builds:
            release.compile_all(deployment, len(listing))  # what was made or altered since
        release.seal(deployment, listing)

    def _collect(self, place: str, arguments: tuple[str, ...]) -> None:
        """collectstatic, into the settings' STATIC_ROOT `place`. Raises Failed."""
        words = ("collectstatic", "--noinput", "--verbosity", "0", *arguments)
        status, output = self._commands.run(*words, check=False)
        if status == 0:
            return
        refused = _REFUSED.search(output)
        if refused and (Path(refused[1]).is_relative_to(place) or Path(place).is_relative_to(refused[1])):
            app = self._deployment.app
            raise Failed(
                f"{app} may not write {place}, where its settings have STATIC_ROOT",
                refused[0],
                'let the settings read it: `STATIC_ROOT = os.environ["STATIC_ROOT"]`. Without changing the project, a '
                f"settings module of yours does it ([apps.{app}.files]); the live release is untouched",
            )
        raise self._commands.failed(words, status, output)

    def _check(self) -> None:
        """What Django finds wrong with the code fails; what it says of the deployment or of tables yet to come is told.

        Checks of a project's own may ask its mail server or its workers, which are not to be had yet, or its tables: at
        the first deploy they are not there. The release is judged by what it answers.
        """
        words: tuple[str, ...] = ("check", "--deploy")
        status, output = self._commands.run(*words, check=False)
        if status and not _TABLES.search(output):
            complaint, words = tail(output), ("check",)
            status, output = self._commands.run(*words, check=False)
            if status == 0:
                self._tell(f"`check --deploy` fails, and `check` does not:\n{complaint}")
        if status and (not _TABLES.search(output) or record(self._deployment.app)["releases"]):
            raise self._commands.failed(words, status, output)
        if status:
            self._tell(f"`{' '.join(words)}` asks for tables that are not there before the first migrate")

    def migrate(self) -> None:
        """Brings the database to the release's state, after a dump if there is something to lose. Raises Failed."""
        deployment, commands, app = self._deployment, self._commands, self._deployment.app
        kind, name = deployment.database, deployment.database_name
        known = [each["release"] for each in record(app)["releases"]]
        if kind == "sqlite" and (deployment.release not in known or dump.empty(app, kind, name)):
            name = commands.settings()["sqlite"] or name  # settings may name a file of their own
        empty = kind != "none" and dump.empty(app, kind, name)
        if deployment.release in known and not empty:
            return  # it ran here before: its migrations were made then
        arguments = deployment.build.migrate
        ours = any(deployment.build.commands(step) for step in ("before_migrate", "after_migrate"))
        self._expect_first(empty, known)
        pending = empty
        if not empty and kind != "none" and (arguments is not None or ours):
            status, _ = commands.run("migrate", "--check", check=False, quiet=True)
            pending = status != 0
            if pending:
                self._dump(kind, name)
        altered = self._hooks("before_migrate")
        if kind != "none" and arguments is not None and (pending or altered or arguments):
            self._stage("migrate")
            commands.run("migrate", "--noinput", *arguments)
        self._hooks("after_migrate")
        self._first()

    def _dump(self, kind: str, name: str) -> None:
        app = self._deployment.app
        self._stage("dump")
        place = dump.take(app, kind, name, f"before-{self._deployment.release}")
        if place is not None:
            self._tell(f"dumped to {place}")
        dump.prune(app, place)

    # -- the first deploy ------------------------------------------------------------------------------------------

    def _expect_first(self, empty: bool, known: list[str]) -> None:
        """Remembers, before the database is anything but new, that the commands of the first deploy are due."""
        kind, mark = self._deployment.database, self._deployment.home / "first-deploy.json"
        if not self._deployment.build.commands("first_deploy") or mark.exists():
            return
        if kind == "none":
            empty = not known
        elif kind == "url":  # somebody else's server: only Django can say
            status, output = self._commands.run("showmigrations", "--plan", check=False, quiet=True)
            if status != 0:
                return  # nor can it now: migrate, which follows, says why
            empty = "[X]" not in output
        if empty or kind == "url":
            paths.write_json(mark, {"due": empty, "done": []})

    def _first(self) -> None:
        """Runs what is due of the first deploy's commands, each until it has succeeded once."""
        mark = self._deployment.home / "first-deploy.json"
        kept: dict[str, Any] = paths.read_json(mark, {"due": False, "done": []})
        if not kept["due"]:
            return
        for command in self._deployment.build.commands("first_deploy"):
            if command not in kept["done"]:
                self._hook("first_deploy", command)
                kept["done"].append(command)
                paths.write_json(mark, kept)
        paths.write_json(mark, {"due": False, "done": kept["done"]})

    # -- commands of the user's ------------------------------------------------------------------------------------

    def _hooks(self, step: str) -> bool:
        """Runs the commands of a step; whether there were any. Raises Failed."""
        commands = self._deployment.build.commands(step)
        if commands:
            # They may alter what Django read when it was begun: the next command of manage.py begins it anew.
            self._commands.close()
        for command in commands:
            self._hook(step, command)
        return bool(commands)

    def _hook(self, step: str, command: str) -> None:
        deployment, app = self._deployment, self._deployment.app
        command = deployment.command(command, self._slot)
        self._stage(f"hook {step}: {shown(command)}")
        done = app_command.run(
            deployment,
            ["/bin/sh", "-ec", command],
            called=shown(command, 300),
            env=self._environment(without_virtualenv=step == "after_checkout"),
            whole=True,
            cwd=str(deployment.code),
            check=False,
            output=lambda line: self._tell(self._masked(line.rstrip("\r").rpartition("\r")[2])),  # a bar's last state
        )
        if done.returncode == 0:
            return
        how = f"ended with {done.returncode}" if done.returncode > 0 else f"was ended by signal {-done.returncode}"
        raise Failed(
            f"`{shown(command, 300)}` of {app} ({step}) {how}",
            self._masked(tail(done.stdout)),
            f"correct it, or [apps.{app}.hooks] {step}, and deploy again; the live release is untouched",
        )

    @functools.cached_property
    def _masked(self) -> Callable[[str], str]:
        return self._deployment.mask(self._slot)

    def _environment(self, *, without_virtualenv: bool) -> dict[str, str]:
        found = self._deployment.environment(self._slot, make=True)
        if without_virtualenv:
            del found["VIRTUAL_ENV"]
            found["PATH"] = found["PATH"].removeprefix(f"{self._deployment.virtualenv}/bin:")
        return found


def shown(command: str, longest: int = _LONGEST) -> str:
    """A command on one line of so many characters."""
    line = " ".join(command.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
