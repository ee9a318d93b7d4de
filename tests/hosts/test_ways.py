"""Ways that the other tests do not take: Fabric's -H, a jump host, uv.lock, back after the switch, others' databases.

The host is also somebody's own machine, with a PostgreSQL of theirs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import tiny
from .conftest import WARM
from .machines import REPOSITORY
from .site import READER, Host, Project, eventually, standing

TINY = "tiny.example"

CONFIGURATION = """\
HOST

[apps.reader]
source = "examples/reader"
domains = ["reader.example"]
database = "sqlite"
static = false

[apps.tiny]
source = "tiny"
domains = ["tiny.example"]

[apps.visitor]
source = "visitor"
domains = ["visitor.example"]
database = "postgresql://somebody:it%27s%20mine@127.0.0.1/theirs"
hooks = { first_deploy = "python manage.py shell -c 'from notes.models import *; Note.objects.create(text=1)'" }

[apps.plain]
source = "plain"
domains = ["plain.example"]
database = "none"
hooks = { first_deploy = "echo once >> $HOME/first" }
"""
#: A page that asks no database.
PLAIN = """\
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("version 1"))]
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("ways", WARM) as host:
        base = tmp_path_factory.mktemp("ways")
        (base / "project").mkdir()
        project = Project(base / "project", host)
        project.example("reader")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            base / "uv",
        ]
        subprocess.run([*pip, "uv"], check=True)
        subprocess.run([base / "uv/bin/uv", "lock", "--quiet"], cwd=project.folder / "examples/reader", check=True)
        for name in ("tiny", "visitor", "plain"):
            tiny.write(project.folder / name)
        (project.folder / "plain/tiny/urls.py").write_text(PLAIN)
        host.psql("postgres", "CREATE ROLE somebody LOGIN PASSWORD 'it''s mine'")
        host.psql("postgres", "CREATE DATABASE theirs OWNER somebody")
        project.write(CONFIGURATION.replace("HOST\n", host.table))
        project.first = project.fab("deploy")
        assert project.first.status == 0, project.first.text
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def test_a_uv_lock_decides_what_is_installed(site: Project, host: Host) -> None:
    assert (site.folder / "examples/reader/uv.lock").is_file()
    host.up(READER)
    locked = (site.folder / "examples/reader/uv.lock").read_text()
    version = locked.split('name = "django"\nversion = "')[1].partition('"')[0]
    assert host.sh(f"ls -d /srv/reader/live/venv/lib/python3.*/site-packages/django-{version}.dist-info")


def test_fabrics_own_option_names_the_host(site: Project) -> None:
    ran = site.fab("-H", site.host.name, "plan")
    assert (ran.status, ran.last) == (0, "nothing to do"), ran.text


def test_a_mistake_in_the_file_is_told_and_nothing_stays_on_the_host(site: Project, host: Host) -> None:
    """The connection is open by the time that the file has been read."""
    site.settled()
    site.edit("deploykit.toml", "static = false", "statik = false")
    ran = site.fab("deploy")
    assert ran.status == 1 and "statik" in ran.text, ran.text
    site.edit("deploykit.toml", "statik = false", "static = false")
    host.sh("for i in $(seq 50); do pgrep -f '[/]var/lib/deploykit/agent' || exit 0; sleep 0.1; done; exit 1")
    site.settled()


def test_the_plan_says_how_memory_is_shared(site: Project) -> None:
    assert "MiB of memory: " in site.fab("plan").stdout
    assert "PostgreSQL" in site.fab("plan").stdout


def test_a_jump_host_of_the_ssh_configuration(site: Project, host: Host) -> None:
    box = host.machine
    home = site.folder.parent / f"{site.folder.name}-home"
    (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / ".ssh/known_hosts").write_text(f"{box.address},127.0.0.1 {box.host_key}\n")
    (home / ".ssh/config").write_text(
        f"Host jump\n  HostName {box.address}\n  User root\n  IdentityFile {box.identity}\n"
        f"Host inner\n  HostName 127.0.0.1\n  User root\n  IdentityFile {box.identity}\n  ProxyJump jump\n"
    )
    ran = site.fab("plan", "--host", "inner")
    assert (ran.status, ran.last) == (0, "nothing to do"), ran.text


def test_a_release_that_fails_behind_nginx_is_swapped_back(site: Project, host: Host) -> None:
    """Healthy when asked on its socket, broken for visitors: only seen after the switch."""
    before = host.programs()
    good = (site.folder / "tiny/tiny/urls.py").read_text()
    site.edit(
        "tiny/tiny/urls.py",
        "def home(request):\n",
        'def home(request):\n    if "HTTP_X_REAL_IP" in request.META:\n'
        '        return HttpResponse("broken", status=500)\n',
    )
    ran = site.fab("deploy")
    assert ran.status == 1, ran.text
    assert "answers 500 through nginx, after the switch" in ran.text
    assert "the release before is live again" in ran.text
    assert host.programs() == before
    assert host.curl(TINY).status == 200
    (site.folder / "tiny/tiny/urls.py").write_text(good)
    site.settled()


def test_commands_of_the_first_deploy_run_once_whosoever_the_database_is(site: Project, host: Host) -> None:
    """Not at the second deploy, which fails after it would have run them, nor at the next that goes well."""

    def once() -> None:
        assert host.psql("theirs", "SELECT text FROM notes_note") == "1"
        assert host.said("cat", "/srv/plain/home/first") == "once"

    def each(path: str, old: str, new: str) -> None:
        for app in ("visitor", "plain"):
            site.edit(f"{app}/tiny/{path}", old, new)

    once()
    each("wsgi.py", "application =", "import no_such_module\n\napplication =")
    ran = site.fab("deploy")
    assert ran.status == 1 and ran.stderr.count("No module named 'no_such_module'") == 2, ran.text
    once()
    each("wsgi.py", "import no_such_module\n\n", "")
    each("urls.py", "version 1", "version 2")
    site.deploy()
    assert "version 2 has 1 notes" in host.curl("visitor.example").text
    assert "version 2" in host.curl("plain.example").text
    once()


def test_an_app_runs_on_ones_own_machine_with_postgresql(host: Host, tmp_path: Path) -> None:
    """The user `deploy`, whom every test machine has, develops there, with deploykit and the database server."""
    home = "/home/deploy"
    desk = tmp_path / "desk"
    tiny.write(desk / "tiny")
    (desk / "fabfile.py").write_text("from deploykit.tasks import *\n")
    (desk / "deploykit.toml").write_text('[apps.workshop]\nsource = "tiny"\ndomains = ["workshop.example"]\n')
    parts = ("deploykit", "recipes", "templates", "pyproject.toml", "README.md", "-C", tmp_path, "desk")
    words = ["tar", "-c", "--exclude=__pycache__", "-C", REPOSITORY, *parts]
    host.machine.run("tar", "-x", "-C", home, stdin=subprocess.run(words, capture_output=True, check=True).stdout)
    host.sh(f"chown -R deploy: {home}; runuser -u postgres -- createuser --createdb deploy")
    tools = f"export HOME={home} PATH=/opt/deploykit/uv/bin:$PATH SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
    fab = f"{tools}; cd {home}/desk; exec ../venv/bin/fab local --app workshop --postgres"

    def by_them(script: str) -> str:
        return host.said("sh", "-ec", script, user="deploy")

    by_them(f"{tools}; cd {home}; uv venv -q venv; VIRTUAL_ENV={home}/venv uv pip install -q .")
    host.sh(
        f"runuser -u deploy -- setsid -f sh -c 'echo $$ >{home}/pid; {fab} --port 8123' </dev/null >{home}/said 2>&1"
    )

    def page() -> str:
        return host.run("curl", "-s", "http://127.0.0.1:8123/", check=False).stdout

    assert eventually(lambda: "version 1 has 0 notes" in page(), 60), host.said("cat", f"{home}/said")
    assert host.psql("workshop", "INSERT INTO notes_note (text) VALUES ('x') RETURNING id") == "1"
    assert "version 1 has 1 notes" in page()
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'workshop'"
    assert host.psql("postgres", owner) == "deploy"
    assert by_them(f"find {home}/desk -name db.sqlite3") == ""
    said = by_them(f"{fab} --cmd 'python manage.py dumpdata notes'")
    assert said.endswith('[{"model": "notes.note", "pk": 1, "fields": {"text": "x"}}]'), said
    host.sh(f"kill $(cat {home}/pid)")
    assert eventually(lambda: page() == "", 10), "what it began ends with it"
