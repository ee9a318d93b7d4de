"""An app on the developer's own machine, by `fab local`: runserver with SQLite, or with the services that are here.

Everything that is made lies in `.deploykit/local/<app>/` beside deploykit.toml: virtualenv, SQLite, media, secrets.
The code runs where it lies, so what is edited is what runs.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from deploykit import localvenv, memory, source
from deploykit.config.project import AppEntry, Project
from deploykit.detect import Detected, check_python
from deploykit.errors import DeploykitError
from deploykit.localenv import Ask, Local, Store, environment

Tell = Callable[[str], None]

_PORT = 8000


def run(
    project: Project, name: str, tell: Tell, ask: Ask, *, command: str = "", port: int = 0, postgres: bool = False
) -> int:
    """Runs `command` (by the shell), or migrates and serves the app until Ctrl-C; the exit status.

    Raises DeploykitError for what is not as it must be.
    """
    entry = project.app(name)
    folder = project.folder.absolute() / ".deploykit" / "local" / name
    _prepare(folder, project.folder / ".deploykit")
    tree = _tree(entry, folder)
    detected = memory.detect(tree, entry.root, entry.settings, name)
    place = _free(port) if port or not command else _PORT
    database = _postgres(entry) if postgres else ""
    here = environment(project, entry, tree, detected, folder, Store(folder / "secrets.json", ask), place, database)
    if not here.app.python.version:
        check_python(here.app.python.requires, platform.python_version(), f"[apps.{name}]")
    code = tree.folder / detected.root
    venv = localvenv.made(here.app, here.venv, tree.folder, folder, tell)
    variables = _variables(here, entry, detected, venv)
    for note in here.notes:
        tell(note)
    if command:
        return _foreground(["/bin/sh", "-c", command], code, variables)
    manage = ["manage.py"] if (code / "manage.py").exists() else ["-m", "django"]
    django = [str(venv / "bin" / "python"), *manage]
    _told(entry, detected, folder, database, tell)
    if entry.build.migrate is not None and here.app.database.kind != "none":
        tell("manage.py migrate")
        status = _foreground([*django, "migrate", "--noinput", "--verbosity", "0"], code, variables)
        if status:
            raise DeploykitError(f"migrate ended with {status}", f"[apps.{name}]", _advice(detected, database, name))
    tell(f"http://127.0.0.1:{place}/ (Ctrl-C ends it)")
    insecure = _insecure(django, code, variables)
    return _foreground([*django, "runserver", f"127.0.0.1:{place}", *insecure], code, variables)


def _prepare(folder: Path, top: Path) -> None:
    try:
        for each in (folder, folder / "data", folder / "media", folder / "static"):
            each.mkdir(parents=True, exist_ok=True)
        ignore = top / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")  # whatever the project's own .gitignore says: secrets are below here
    except OSError as error:
        raise DeploykitError(f"cannot be written: {error.strerror}", str(folder)) from None


def _tree(entry: AppEntry, folder: Path) -> source.Tree:
    """The app's source; one from git as a copy, for what runs in a folder leaves files there."""
    tree = source.read(entry.source, entry.exclude, entry.name)
    if not entry.source.git:
        return tree
    code = folder / "code"
    mark = folder / "code.digest"
    if not mark.exists() or mark.read_text() != tree.digest:
        shutil.rmtree(code, ignore_errors=True)
        for path, each in tree.entries.items():
            target = code / path
            target.parent.mkdir(parents=True, exist_ok=True)
            data = tree.read(path)
            if stat.S_ISLNK(each.mode):
                target.symlink_to(os.fsdecode(data))
            else:
                target.write_bytes(data)
                target.chmod(stat.S_IMODE(each.mode) | 0o600)
        mark.write_text(tree.digest)
    return replace(tree, folder=code)


def _variables(here: Local, entry: AppEntry, detected: Detected, venv: Path) -> dict[str, str]:
    """All that a process gets: the developer's own environment, and over it the app's."""
    found = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    found |= here.variables
    found["VIRTUAL_ENV"] = str(venv)
    found["PATH"] = f"{venv}/bin:{os.environ.get('PATH', os.defpath)}"
    # manage.py's own module is the one for developers, where it has one that is there.
    found["DJANGO_SETTINGS_MODULE"] = detected.by_hand or here.app.settings
    return found


def _told(entry: AppEntry, detected: Detected, folder: Path, database: str, tell: Tell) -> None:
    tell(f"settings {detected.by_hand or detected.settings}; its own files are in {os.path.relpath(folder)}")
    if database:
        tell("database: PostgreSQL on this machine")
    elif entry.database.kind != "none":
        tell(f"database: SQLite in {os.path.relpath(folder)}, if the settings read DATABASE_URL")
    if entry.processes:
        names = ", ".join(each.name for each in entry.processes)
        tell(f"not started here: {names}; `fab local --app {entry.name} --cmd` runs a command of yours beside it")


def _advice(detected: Detected, database: str, name: str) -> str:
    if detected.database == "postgres" and not detected.database_url and not database:
        return f"the settings want PostgreSQL: with a server on this machine, fab local --app {name} --postgres"
    return "what it printed says why"


def _insecure(django: Sequence[str], code: Path, variables: Mapping[str, str]) -> list[str]:
    """What lets runserver serve static files with DEBUG off, where it has such an option."""
    ask = "from django.conf import settings as s; print(s.DEBUG, 'django.contrib.staticfiles' in s.INSTALLED_APPS)"
    done = subprocess.run(
        [*django, "shell", "--command", ask], cwd=code, env=variables, capture_output=True, text=True, check=False
    )
    return ["--insecure"] if done.stdout.split()[-2:] == ["False", "True"] else []


def _free(port: int) -> int:
    """The port, or without one the first that is free. Raises DeploykitError for one that is taken."""
    for each in [port] if port else range(_PORT, _PORT + 100):
        with socket.socket() as probe, contextlib.suppress(OSError, OverflowError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", each))
            return each
    raise DeploykitError(f"port {port or _PORT} cannot be had", "--port", "choose another, or leave it out")


def _postgres(entry: AppEntry) -> str:
    """The URL of a database of the developer's own server, which is made when it is not there."""
    name = entry.database.name or entry.name.replace("-", "_")
    try:
        probe = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", "postgres", "--command"]
        there = _said([*probe, "SELECT datname FROM pg_database"])
        if name not in there.split():
            _said(["createdb", name])
    except FileNotFoundError as error:
        raise DeploykitError(f"{error.filename} is not on this machine", "--postgres", "install PostgreSQL") from None
    host = os.environ.get("PGHOST", "")
    place = host if not host.startswith("/") else ""
    return f"postgresql://{os.environ.get('PGUSER') or getpass.getuser()}@{place}/{name}"


def _said(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        todo = f"is the server running, and may {getpass.getuser()} make databases there?\n{done.stderr.strip()}"
        raise DeploykitError(f"{words[0]} failed", "--postgres", todo)
    return done.stdout


def _foreground(words: Sequence[str], folder: Path, variables: Mapping[str, str]) -> int:
    """Runs a program with our terminal to its end. Ctrl-C reaches it as it reaches us, and it decides."""
    sys.stdout.flush()
    with _ending() as ended:
        child = subprocess.Popen(words, cwd=folder, env=dict(variables))
        ended.append(child)
        while True:
            try:
                status = child.wait()
                break
            except KeyboardInterrupt:
                continue
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def _ending() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Whoever ends us ends the child, too."""
    children: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.terminate()

    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
