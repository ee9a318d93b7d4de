"""An app is not trusted: neither its requirements, nor its settings, nor what it puts into its own folders."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, standing

DOMAIN = "tiny.example"

#: Settings as many projects have them: everything below the project's own folder, under names of their own.
SETTINGS = """

INSTALLED_APPS = ["notes", "django.contrib.staticfiles"]
BASE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(BASE, "site.db")}}
MEDIA_ROOT = os.path.join(BASE, "media")
MEDIA_URL = "/media/"
STATIC_ROOT = os.environ["STATIC_ROOT"]
STATIC_URL = "/static/"
"""

WHEEL = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
METADATA = "Metadata-Version: 2.1\nName: evil\nVersion: 1\n"
#: Python runs each line of a .pth file that begins with "import", at every start.
PTH = "import os; os.getuid() == 0 and open('/root/was-here', 'a').write('root ran the code of an app')\n"

SECOND = """\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.AddField("note", "more", models.TextField(default=""))]
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("bad", WARM) as host:
        project = Project(tmp_path_factory.mktemp("hostile"), host)
        app = project.folder / "tiny"
        tiny.write(app)
        settings = app / "tiny/settings.py"
        settings.write_text(settings.read_text() + SETTINGS)
        wheel(app)
        (app / "requirements.txt").write_text("Django>=5.2,<5.3\ndj-database-url\n./evil-1-py3-none-any.whl\n")
        (app / "media").mkdir()
        (app / "media/keep.txt").write_text("sample\n")
        project.write(f'{host.table}\n[apps.tiny]\nsource = "tiny"\ndomains = ["{DOMAIN}"]\ndatabase = "sqlite"\n')
        project.first = project.fab("deploy")
        assert project.first.status == 0, project.first.text
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "evil-1-py3-none-any.whl", "w") as file:
        file.writestr("evil.pth", PTH)
        file.writestr("evil-1.dist-info/METADATA", METADATA)
        file.writestr("evil-1.dist-info/WHEEL", WHEEL)
        file.writestr(
            "evil-1.dist-info/RECORD",
            "evil.pth,,\nevil-1.dist-info/METADATA,,\nevil-1.dist-info/WHEEL,,\nevil-1.dist-info/RECORD,,\n",
        )


def test_media_in_the_source_is_served(host: Host) -> None:
    assert host.curl(DOMAIN, "/media/keep.txt").body == b"sample\n"


def test_root_runs_no_code_of_a_requirement(site: Project, host: Host) -> None:
    assert "evil.pth" in host.sh("ls /srv/tiny/venvs/*/lib/python3.*/site-packages")
    assert host.run("test", "-e", "/root/was-here", check=False).returncode == 1


def test_links_in_media_lead_root_nowhere(site: Project, host: Host) -> None:
    before = host.sh("stat --format='%U %G %a' /etc/shadow; ls /etc/cron.d")
    host.run("rm", "/srv/tiny/media/keep.txt", user="tiny")
    host.run("ln", "-s", "/etc/shadow", "/srv/tiny/media/keep.txt", user="tiny")
    host.run("ln", "-s", "/etc/cron.d/evil", "/srv/tiny/media/cron", user="tiny")
    (site.folder / "tiny/media/cron").write_text("* * * * * root id\n")
    site.deploy()
    assert host.sh("stat --format='%U %G %a' /etc/shadow; ls /etc/cron.d") == before
    host.run("rm", "/srv/tiny/media/keep.txt", "/srv/tiny/media/cron", user="tiny")


def test_nginx_follows_no_link_to_what_is_not_the_apps(host: Host) -> None:
    host.sh("echo public > /srv/tiny/live/static/own.txt; chown tiny:www-data /srv/tiny/live/static/own.txt")
    assert host.curl(DOMAIN, "/static/own.txt").status == 200
    host.run("ln", "-s", "/etc/hostname", "/srv/tiny/live/static/foreign.txt", user="tiny")
    assert host.run("test", "-r", "/srv/tiny/live/static/foreign.txt", user="www-data").returncode == 0
    assert host.curl(DOMAIN, "/static/foreign.txt").status in (403, 404)


def test_other_users_read_no_access_logs(host: Host) -> None:
    host.curl(DOMAIN, "/?token=secret")
    assert "token=secret" in host.sh("cat /var/log/nginx/tiny.access.log")
    assert host.run("cat", "/var/log/nginx/tiny.access.log", user="deploy", check=False).returncode == 1


INSERT = "INSERT INTO notes_note (text) VALUES ('kept')"


def test_a_database_under_another_name_is_dumped_before_a_migration(site: Project, host: Host) -> None:
    place = "/srv/tiny/data/site.db"
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    host.run("python3", "-c", script, place, INSERT, user="tiny")
    (site.folder / "tiny/notes/migrations/0002_more.py").write_text(SECOND)
    field = "    text = models.TextField()"
    site.edit("tiny/notes/models.py", field, f'{field}\n    more = models.TextField(default="")')
    site.deploy()
    assert "1 notes" in host.curl(DOMAIN).text
    assert rows(host, "/var/backups/deploykit/tiny/*-before-*.sqlite3") == "kept"


def test_and_before_it_is_deleted(site: Project, host: Host) -> None:
    ran = site.fab("remove-app", "tiny", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert "deleted-site.sqlite3" in ran.text
    assert host.run("test", "-e", "/srv/tiny", check=False).returncode == 1
    assert rows(host, "/var/backups/deploykit/tiny/*-deleted-site.sqlite3") == "kept"


def rows(host: Host, pattern: str) -> str:
    script = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT text FROM notes_note').fetchone())"
    )
    return host.sh(f'python3 -c "{script}" {pattern}')
