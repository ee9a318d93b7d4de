"""Making a release: its code, its virtualenv, its static files, its place in the database. Nothing here is live yet."""

from __future__ import annotations

import grp
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploykit.agent import paths
from deploykit.agent.deployment import Deployment, Health, condition
from deploykit.agent.process import ENVIRONMENT, run, tail
from deploykit.agent.resource import Failed

Tell = Callable[[str], None]
#: A tree: (path, mode, size, sha256) of each file, sorted by path. A link has mode 0o120777 and its target as content.
Listing = list[tuple[str, int, int, str]]

#: Asks Django where it keeps things; a settings module need not read the environment for them.
_ASK = """
import json, os
from django.conf import settings
def of(name):
    return str(getattr(settings, name, None) or "")
base = settings.DATABASES.get("default", {})
print("deploykit:" + json.dumps({
    "STATIC_ROOT": of("STATIC_ROOT"), "MEDIA_ROOT": of("MEDIA_ROOT"),
    "staticfiles": "yes" if "django.contrib.staticfiles" in settings.INSTALLED_APPS else "",
    "sqlite": str(base.get("NAME") or "") if "sqlite" in str(base.get("ENGINE", "")) else "",
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


def missing(deployment: Deployment, listing: Listing) -> list[str]:
    """The SHA-256 of each file that no release on the host has, in the listing's order, without repeats."""
    have = _contents(deployment)
    return list(dict.fromkeys(sha for _, _, _, sha in listing if sha not in have))


def _contents(deployment: Deployment) -> dict[str, Path]:
    """Where each content is found in the releases that are there, if it still is as it was written."""
    found: dict[str, Path] = {}
    for folder in (deployment.home / "releases").glob("*"):
        kept = _sealed(folder)
        if kept is None:
            continue
        shas = dict(kept["contents"])
        for path, size, changed in kept["seals"]:
            place = folder / "code" / path
            try:
                status = os.lstat(place)
            except OSError:
                continue
            if (status.st_size, status.st_mtime_ns) == (size, changed) and stat.S_ISREG(status.st_mode):
                found[shas[path]] = place
    return found


def _sealed(folder: Path) -> dict[str, Any] | None:
    try:
        kept: dict[str, Any] | None = paths.read_json(folder / "release.json", None)
    except (ValueError, NotADirectoryError):
        return None
    return kept


def complete(deployment: Deployment) -> bool:
    """Whether the release is there, whole and unaltered."""
    return condition(deployment.app, deployment.release) == "as released"


def lay(deployment: Deployment, listing: Listing, received: Path) -> Path:
    """Lays the code into a new folder beside the release's place and returns it; files that did not change are linked.

    `received` holds the files that were sent, each named by its SHA-256. Root owns, the app's group reads.
    """
    partial = deployment.folder.with_name(f"{deployment.release}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o711)
    (partial / "venv").symlink_to(deployment.virtualenv)  # for people: /srv/<app>/live/venv/bin/python manage.py ...
    code = partial / "code"
    code.mkdir(mode=0o750)
    group = grp.getgrnam(deployment.app).gr_gid
    os.chown(code, 0, group)
    made = {code}
    have = _contents(deployment)
    for path, mode, _, sha in listing:
        place = code / path
        _folders(place.parent, made, group)
        if stat.S_ISLNK(mode):
            sent = received / sha
            target = (sent if sent.exists() else have[sha]).read_text()
            if not (place.parent / target).resolve().is_relative_to(code.resolve()):
                raise Failed(f"{path} is a link that leads out of the source", target, "leave it out with `exclude`")
            place.symlink_to(target)
            continue
        sent = received / sha
        rights = 0o750 if mode & 0o111 else 0o640
        kept = have.get(sha)
        if not sent.exists() and kept is not None and stat.S_IMODE(kept.stat().st_mode) == rights:
            os.link(kept, place)
            continue
        shutil.copyfile(sent if sent.exists() else have[sha], place)
        place.chmod(rights)
        os.chown(place, 0, group)
    return partial


def _folders(folder: Path, made: set[Path], group: int) -> None:
    if folder in made:
        return
    _folders(folder.parent, made, group)
    folder.mkdir(mode=0o750)
    os.chown(folder, 0, group)
    made.add(folder)


def install(deployment: Deployment, tell: Tell) -> None:
    """Makes the virtualenv, as the app's user; then it is root's, and complete."""
    venv = deployment.virtualenv
    if (venv / ".complete").exists():
        return
    shutil.rmtree(venv, ignore_errors=True)
    want = deployment.venv
    user = deployment.app
    venv.mkdir(mode=0o750)
    shutil.chown(venv, user, user)
    env = {
        **dict(want.environment),
        "HOME": f"/srv/{user}/home",
        "VIRTUAL_ENV": str(venv),
        "UV_PROJECT_ENVIRONMENT": str(venv),
        "UV_LINK_MODE": "copy",  # the cache is the app's, the virtualenv becomes root's
        "UV_COMPILE_BYTECODE": "1",  # the app cannot write there later
    }
    top = deployment.folder / "code"

    def uv(*arguments: str) -> None:
        outcome = run([want.uv, *arguments], user=user, env=env, cwd=str(top), check=False, output=tell)
        if outcome.returncode != 0:
            raise Failed(
                f"the virtualenv of {deployment.app} could not be made",
                tail(outcome.stdout),
                "correct the requirements (or `python`) and deploy again; the live release is untouched",
            )

    try:
        uv("venv", "--quiet", "--allow-existing", "--python", want.python, str(venv))
        pip = ["pip", "install", "--quiet", "--python", str(venv / "bin/python")]
        if want.kind == "uv":
            project = str((top / want.files[0]).parent)
            uv("sync", "--quiet", "--frozen", "--no-dev", "--no-install-project", "--project", project)
            uv(*pip, *want.extra)
        else:
            uv(*pip, *(word for file in want.files for word in ("-r", file)), *want.extra)
    except Failed:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    run(["chown", "-R", "-h", f"root:{user}", str(venv)])
    venv.chmod(0o750)
    os.sync()  # a power cut must not leave empty files behind a mark that says complete
    (venv / ".complete").touch()


def seal(deployment: Deployment, listing: Listing) -> None:
    """Notes how every file of the release looks, so that an altered one is seen, and that the release is whole."""
    top = deployment.folder / "code"
    seals = []
    for path, mode, _, _ in listing:
        if stat.S_ISLNK(mode):
            continue
        try:
            status = os.lstat(top / path)
        except OSError:
            continue  # replaced by a link to what persists
        if stat.S_ISREG(status.st_mode):
            seals.append((path, status.st_size, status.st_mtime_ns))
    static = deployment.folder / "static"
    served = [(str(path.relative_to(static)), path.lstat()) for path in sorted(static.rglob("*")) if path.is_file()]
    paths.write(
        deployment.folder / "release.json",
        json.dumps(
            {
                "release": deployment.release,
                "label": deployment.label,
                "venv": deployment.venv.key,
                "made": time.time(),
                "seals": seals,
                "static": [(path, status.st_size, status.st_mtime_ns) for path, status in served],
                "contents": [(path, sha) for path, _, _, sha in listing],
            }
        ),
    )


class Commands:
    """Commands of a release as the app's user, with the app's own environment and virtualenv."""

    def __init__(self, deployment: Deployment, slot: str, tell: Tell) -> None:
        self._deployment = deployment
        self._tell = tell
        variables = deployment.environment(slot, make=True)
        venv = str(deployment.virtualenv)
        self._env = {
            "HOME": f"/srv/{deployment.app}/home",
            **variables,
            "VIRTUAL_ENV": venv,
            "PATH": f"{venv}/bin:{variables.get('PATH', ENVIRONMENT['PATH'])}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def python(self, *arguments: str, check: bool = True, quiet: bool = False) -> tuple[int, str]:
        """Runs the virtualenv's Python in manage.py's folder; (status, output)."""
        outcome = run(
            [str(self._deployment.virtualenv / "bin/python"), *arguments],
            user=self._deployment.app,
            env=self._env,
            cwd=str(self._deployment.code),
            check=False,
            output=(lambda line: None) if quiet else self._tell,
        )
        if check and outcome.returncode != 0:
            raise Failed(
                f"`python {' '.join(arguments[:3])}` of {self._deployment.app} ended with {outcome.returncode}",
                tail(outcome.stdout),
                "correct the app and deploy again; the live release is untouched",
            )
        return outcome.returncode, outcome.stdout

    def error(self, health: Health) -> str:
        """The traceback of a page that answers 5xx; "" when it does not fail here."""
        _, output = self.python("-c", _ERROR, health.path, health.host, health.scheme, check=False, quiet=True)
        return tail(output) if "Traceback" in output else ""

    def settings(self) -> dict[str, str]:
        """Where Django keeps static files, media and SQLite."""
        _, output = self.python("-c", _ASK, check=False, quiet=True)
        for line in output.splitlines():
            if line.startswith("deploykit:"):
                answer: dict[str, str] = json.loads(line.removeprefix("deploykit:"))
                return answer
        raise Failed(
            f"the settings of {self._deployment.app} cannot be imported",
            tail(output),
            f"correct the settings or their environment ([apps.{self._deployment.app}.env]) and deploy again; "
            "the live release is untouched",
        )


def persist(deployment: Deployment, settings: dict[str, str]) -> None:
    """Where a project writes inside its own folder, a link leads to the place that outlives the release."""
    home = deployment.home
    _redirect(deployment, settings["STATIC_ROOT"], deployment.folder / "static")
    _redirect(deployment, settings["MEDIA_ROOT"], home / "media")
    if settings["sqlite"] and settings["sqlite"] != ":memory:":
        place = Path(os.path.normpath(settings["sqlite"]))
        if _inside(deployment, place) and not place.is_symlink():
            place.unlink(missing_ok=True)
            place.symlink_to(home / "data" / place.name)


def _inside(deployment: Deployment, place: Path) -> bool:
    return place.is_absolute() and place.is_relative_to(deployment.folder / "code")


def _redirect(deployment: Deployment, setting: str, lasting: Path) -> None:
    # What the app's own code says: "../" must not lead root elsewhere.
    place = Path(os.path.normpath(setting)) if setting else None
    if place is None or not _inside(deployment, place) or place == deployment.folder / "code":
        return
    if place.is_dir() and not place.is_symlink():
        # As the app: it owns the place, and could have put links there that lead root astray. cp of coreutils 9.2 to
        # 9.4 calls it a failure that a file is there already.
        run(["cp", "-r", "-n", f"{place}/.", str(lasting)], user=deployment.app, check=False)
        shutil.rmtree(place)
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(lasting)
