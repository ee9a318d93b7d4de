"""Where everything of an app is on a host: its folders, sockets, configuration, programs and logs, each spelled once.

All paths are below `ROOT`, the host's own root: tests run the agent on a temporary folder instead.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ.get("DEPLOYKIT_ROOT", "/"))


def home(app: str) -> Path:
    """The app's folder: code, virtualenvs, media and data are in it."""
    return ROOT / "srv" / app


def releases(app: str) -> Path:
    """The folder of the app's releases."""
    return home(app) / "releases"


def release(app: str, name: str) -> Path:
    """The folder of one release: `code`, `static` and `release.json` are in it."""
    return releases(app) / name


def virtualenv(app: str, key: str) -> Path:
    """The folder of a virtualenv."""
    return home(app) / "venvs" / key


def live_release(app: str) -> Path:
    """The link to the live release: nginx serves static files through it."""
    return home(app) / "live"


def previous_release(app: str) -> Path:
    """The link to the release before the live one: browsers may still ask for its static files."""
    return home(app) / "previous"


def run(app: str) -> Path:
    """The folder in /run that the app's own processes may write."""
    return ROOT / "run" / app


def all_sockets() -> Path:
    """The folder of all apps' folders of sockets."""
    return ROOT / "run/deploykit"


def sockets(app: str) -> Path:
    """The folder of the sockets that nginx connects to: root's, so that no app can put a link to another's there."""
    return all_sockets() / app


def socket(app: str, slot: str, name: str = "") -> Path:
    """The socket of a web server of a slot: of the app's own, or of the process `name`. The slot "live" is a link."""
    return sockets(app) / (f"{slot}.{name}.sock" if name else f"{slot}.sock")


def etc() -> Path:
    """The folder of configuration that deploykit writes and apps read."""
    return ROOT / "etc/deploykit"


def environment(app: str, slot: str = "") -> Path:
    """The environment file of a slot; without one, the link to the live slot's."""
    return etc() / (f"{app}.{slot}.env" if slot else f"{app}.env")


def config_files(app: str, slot: str) -> Path:
    """The folder of the configuration files that an app has in a slot."""
    return etc() / f"{app}.{slot}.d"


def supervisor(app: str, slot: str) -> Path:
    """The file by which supervisor knows the programs of a slot."""
    return ROOT / "etc/supervisor/conf.d" / f"{app}-{slot}.conf"


def supervisors_socket() -> Path:
    """The socket at which supervisor is asked."""
    return ROOT / "var/run/supervisor.sock"


def boot(app: str) -> Path:
    """The file by which the links to the live sockets are back after a reboot: /run is empty then (tmpfiles.d(5))."""
    return ROOT / "etc/tmpfiles.d" / f"deploykit-{app}-live.conf"


def started(app: str, slot: str, name: str = "web") -> Path:
    """Where the launcher notes which process a program of a slot is: its number, and when it began."""
    return sockets(app) / f"{slot}.{name}.pid"


def launcher() -> Path:
    """What starts every program of an app's: templates/app/launch."""
    return ROOT / "usr/local/lib/deploykit/launch"


def program(app: str, slot: str, name: str = "") -> str:
    """What supervisor calls the main web server of a slot, or the program `name` ("worker-1") of it."""
    return f"{app}-{slot}.{name}" if name else f"{app}-{slot}"


def logs() -> Path:
    """The folder of what supervisor's programs print."""
    return ROOT / "var/log/deploykit"


def log(program: str) -> Path:
    """Where a program of supervisor's prints to."""
    return logs() / f"{program}.log"


def backups(app: str) -> Path:
    """The folder of dumps of the app's database; root's alone."""
    return ROOT / "var/backups/deploykit" / app
