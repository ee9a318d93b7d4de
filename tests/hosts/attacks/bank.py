"""Two apps on a host: bank, which has something to lose, and evil, whose code is hostile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .. import busy, tiny
from ..conftest import WARM
from ..site import Host, Project, standing

BANK, EVIL = "bank.example", "evil.example"
PORT = 6402
PASSWORD = "correct horse battery staple"

_TOML = f"""\
HOST

[apps.bank]
source = "bank"
domains = ["{BANK}"]
redis = true
services = {{ sessions = {{ kind = "redis", port = {PORT} }} }}
media = "/media/"

[apps.bank.processes.worker]
command = "python manage.py work"
steady = 1

[apps.bank.nginx.basic_auth]
anna = {{ command = "echo {PASSWORD}" }}

[apps.evil]
source = "evil"
domains = ["{EVIL}"]
redis = true
media = "/media/"

[apps.evil.processes.worker]
command = "python manage.py work"
steady = 1
"""


@contextlib.contextmanager
def bank_and_evil(suffix: str, folder: Path) -> Iterator[Project]:
    """A host with both apps, live."""
    with standing(suffix, WARM) as host:
        project = Project(folder, host)
        for app in ("bank", "evil"):
            source = folder / app
            busy.write(source)
            (source / "requirements.txt").write_text(tiny.REQUIREMENTS)
            (source / "tiny/echo.py").unlink()
            work = source / "notes/management/commands/work.py"
            work.write_text(work.read_text().replace("/srv/tiny/", f"/srv/{app}/"))
            urls = source / "tiny/urls.py"
            urls.write_text(urls.read_text().replace("<title>tiny</title>", f"<title>{app}</title>"))
            settings = source / "tiny/settings.py"
            settings.write_text(settings.read_text() + '\nMEDIA_ROOT = os.environ["MEDIA_ROOT"]\n')
        project.write(_TOML.replace("HOST\n", host.table))
        project.deploy()
        for app in ("bank", "evil"):
            host.sh(f"echo x >/var/backups/deploykit/{app}/own")
            host.run("sh", "-c", f"umask 027; echo x >/srv/{app}/data/own; echo x >/srv/{app}/media/own", user=app)
        yield project


def slot(host: Host, app: str) -> str:
    """The app's live slot."""
    return host.said("readlink", f"/run/deploykit/{app}/live.sock").removesuffix(".sock")


def own(host: Host, app: str) -> bool:
    """Whether the app's site is answered by the app itself."""
    words = ("--user", f"anna:{PASSWORD}") if app == "bank" else ()
    return f"<title>{app}</title>" in host.curl(f"{app}.example", "/", *words).text
