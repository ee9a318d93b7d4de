"""The standard job: N Django apps, each with user, virtualenv, environment, database, static files, gunicorn and site.

A project is a git repository that every tool finds alike: `app01/` to `appNN/` are copies of examples/memories,
`app01.env` holds the app's own variables. What a tool needs to know beside that (deploykit.toml, an inventory) is
written from `Job.apps`.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SETTINGS = "config.settings"
WSGI = "config.wsgi:application"
SERVER = "gunicorn>=25.1"  # before it, there is no --no-control-socket
WORKERS = 1  # of gunicorn, for each app; more would not let 30 apps fit
THREADS = 2
_FOOTER = "Kept by the family, for the family."
_PAGE = "photos/templates/photos/base.html"


@dataclass
class App:
    """One app: what its pages must say now."""

    name: str
    version: str = "v0"
    edition: int = 0

    @property
    def domain(self) -> str:
        """Where nginx serves it."""
        return f"{self.name}.example"

    @property
    def env(self) -> dict[str, str]:
        """The variables of its own."""
        return {"APP_VERSION": self.version}

    @property
    def words(self) -> str:
        """What its home page says at the bottom."""
        return f"{_FOOTER} Edition {self.edition}. <span>Version {self.version}</span>"


class Job:
    """The project of one tool in `folder`."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.apps = [App(f"app{number:02}") for number in range(1, count + 1)]
        folder.mkdir(parents=True)
        rubbish = shutil.ignore_patterns("__pycache__", "*.pyc", "db.sqlite3*", "media", "staticfiles", ".venv")
        for app in self.apps:
            shutil.copytree(REPOSITORY / "examples/memories", folder / app.name, ignore=rubbish)
            with (folder / app.name / "requirements.txt").open("a") as file:
                file.write(f"{SERVER}\n")
            self._write(app)
        self._git("init", "-q")

    def change(self, app: App) -> None:
        """One line of one app's configuration: its pages show the value."""
        app.version = f"v{int(app.version[1:]) + 1}"
        self._write(app)

    def edit(self, app: App) -> None:
        """One line of one app's source."""
        app.edition += 1
        self._write(app)

    def commit(self) -> None:
        """All that was written, to git, as users have it before they deploy."""
        self._git("add", "-A")
        who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        self._git(*who, "commit", "-q", "--allow-empty", "-m", "bench")

    def _write(self, app: App) -> None:
        (self.folder / f"{app.name}.env").write_text("".join(f"{name}={value}\n" for name, value in app.env.items()))
        page = self.folder / app.name / _PAGE
        begin, rest = page.read_text().split(_FOOTER)
        end = rest[rest.index(" <span>") :]
        page.write_text(f"{begin}{_FOOTER} Edition {app.edition}.{end}")

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.folder), *arguments], check=True, env={**os.environ, "HOME": "/nowhere"})

    def check(self, address: str, patience: float = 60.0) -> None:
        """Every app answers with the page of its own release and version, and serves its style sheet.

        RuntimeError when one does not within `patience` seconds: some tools do not wait for what they restarted.
        """
        end = time.monotonic() + patience
        for app in self.apps:
            while problem := _wrong(address, app):
                if time.monotonic() > end:
                    raise RuntimeError(f"{app.domain} at {address}: {problem}")
                time.sleep(0.2)


def _wrong(address: str, app: App) -> str:
    """What is wrong with an app, "" when nothing is."""
    try:
        status, text = ask(address, app.domain, "/")
        if status != 200 or app.words not in text:
            return f"/ answered {status} without {app.words!r}: {text[-300:]}"
        status, text = ask(address, app.domain, "/healthz")
        if status != 200 or app.version not in text:
            return f"/healthz answered {status} {text[:300]}"
        status, text = ask(address, app.domain, "/static/photos/memories.css")
        if status != 200 or "{" not in text:
            return f"its style sheet: {status}"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    return ""


def ask(address: str, domain: str, path: str) -> tuple[int, str]:
    """GET through the host's nginx: (status, text)."""
    connection = http.client.HTTPConnection(address, 80, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": domain})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
