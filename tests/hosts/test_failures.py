"""A release that does not work never goes live: the one before keeps serving, and the app's own words are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, Ran, standing

DOMAIN = "tiny.example"
KEEP = 3
TOML = f"""\
{{table}}

[apps.tiny]
source = "tiny"
domains = ["{DOMAIN}"]
keep = {KEEP}
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("fail", WARM) as host:
        project = Project(tmp_path_factory.mktemp("fail"), host)
        tiny.write(project.folder / "tiny")
        project.write(TOML.format(table=host.table))
        project.deploy()
        host.psql("tiny", "INSERT INTO notes_note (text) VALUES ('one')")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


@pytest.fixture
def good(site: Project) -> Iterator[str]:
    """What answers before the test; after it the project is as it was, and deploys again."""
    folder = site.folder / "tiny"
    before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    toml = site.toml.read_text()
    answer = site.host.curl(DOMAIN).text
    assert "<title>tiny</title>" in answer
    yield answer
    for path in folder.rglob("*"):
        if path.is_file() and path not in before:
            path.unlink()
    for path, text in before.items():
        path.write_text(text)
    site.write(toml)
    if site.changes():
        site.deploy()
    assert site.host.curl(DOMAIN).text.partition(", pid")[0] == answer.partition(", pid")[0]


def releases(host: Host) -> set[str]:
    return set(host.said("ls", "/srv/tiny/releases").split())


def left_alone(site: Project, before: dict[str, str], had: set[str], answer: str) -> None:
    """The release before serves from the same processes, and nothing of the failed one is left."""
    host = site.host
    assert host.programs() == before and len(before) == 1
    assert host.curl(DOMAIN).text == answer  # the pid of gunicorn is in it
    (program,) = before
    app, slot = program.split("-")
    other = "b" if slot == "a" else "a"
    assert host.said("supervisorctl", "avail").split()[0] == program
    assert host.said("readlink", f"/run/deploykit/{app}/live.sock") == f"{slot}.sock"
    places = f"/run/deploykit/{app}/{other}.sock /etc/supervisor/conf.d/{app}-{other}.conf"
    places += f" /etc/deploykit/{app}.{other}.env /etc/deploykit/{app}.{other}.gunicorn.py"
    assert host.sh(f"ls {places} 2>/dev/null || true") == ""
    assert releases(host) == had


def fails(site: Project, answer: str) -> Ran:
    """A deploy that must fail, and harm nothing."""
    before, had = site.host.programs(), releases(site.host)
    ran = site.fab("deploy")
    assert ran.status == 1, ran.text
    assert "error: host" in ran.stderr and "Traceback (most recent call last)" not in ran.stdout
    left_alone(site, before, had, answer)
    return ran


def works_again(site: Project, text: str) -> None:
    """The next good deploy goes live."""
    site.deploy()
    site.settled()
    assert text in site.host.curl(DOMAIN).text


def test_settings_that_cannot_be_imported(site: Project, good: str) -> None:
    site.edit(
        "tiny/tiny/settings.py", 'SECRET_KEY = os.environ["SECRET_KEY"]', 'SECRET_KEY = os.environ["NO_SUCH_KEY"]'
    )
    ran = fails(site, good)
    assert "KeyError: 'NO_SUCH_KEY'" in ran.stderr


def test_code_that_fails_its_check(site: Project, good: str) -> None:
    site.edit("tiny/tiny/urls.py", "from notes.models import Note", "from notes.models import Note, Letter")
    ran = fails(site, good)
    assert "cannot import name 'Letter' from 'notes.models'" in ran.stderr


def test_static_files_that_the_app_may_not_write(site: Project, host: Host, good: str) -> None:
    """STATIC_ROOT as on a server that was set up by hand."""
    host.sh("install -d -m 755 /var/www/tiny/static")
    with (site.folder / "tiny/tiny/settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["django.contrib.staticfiles"]\nSTATIC_URL = "/static/"\n')
        settings.write('STATIC_ROOT = "/var/www/tiny/static"\n')
    (site.folder / "tiny/notes/static").mkdir()
    (site.folder / "tiny/notes/static/notes.css").write_text("p {}\n")
    ran = fails(site, good)
    assert "tiny may not write /var/www/tiny/static, where its settings have STATIC_ROOT" in ran.stderr
    assert "Permission denied: '/var/www/tiny/static/notes.css'" in ran.stderr and "File " not in ran.stderr
    assert '`STATIC_ROOT = os.environ["STATIC_ROOT"]`' in ran.stderr
    assert host.said("ls", "-A", "/var/www/tiny/static") == ""


def test_a_wsgi_module_that_cannot_be_imported(site: Project, good: str) -> None:
    """`manage.py check` does not import it: gunicorn is the first to stumble."""
    site.edit("tiny/tiny/wsgi.py", "application =", "import no_such_module\n\napplication =")
    ran = fails(site, good)
    assert "No module named 'no_such_module'" in ran.stderr
    site.edit("tiny/tiny/wsgi.py", "import no_such_module\n\n", "")
    site.edit("tiny/tiny/urls.py", "version 1", "version 2")
    works_again(site, "version 2 has 1 notes")


def test_requirements_that_cannot_be_installed(site: Project, good: str) -> None:
    (site.folder / "tiny/requirements.txt").write_text(tiny.REQUIREMENTS + "django<2\n")
    venvs = site.host.said("ls", "/srv/tiny/venvs")
    ran = fails(site, good)
    assert re.search("(?i)django", ran.stderr) and "unsatisfiable" in ran.stderr
    assert site.host.said("ls", "/srv/tiny/venvs") == venvs


def test_a_migration_that_fails(site: Project, host: Host, good: str) -> None:
    (site.folder / "tiny/notes/migrations/0002_fail.py").write_text(tiny.FAILING)
    ran = fails(site, good)
    assert "RuntimeError: the moon is in the wrong quarter" in ran.stderr
    (dump,) = re.findall(r"dumped to (\S+)", ran.stdout)
    assert host.said("stat", "--format=%a %U", dump) == "600 root"
    host.sh(f"runuser -u postgres -- createdb again; runuser -u postgres -- pg_restore --no-owner -d again < {dump}")
    assert host.psql("again", "SELECT text FROM notes_note") == "one"
    host.psql("postgres", "DROP DATABASE again")
    (site.folder / "tiny/notes/migrations/0002_fail.py").unlink()
    site.edit("tiny/tiny/urls.py", "version 1", "version 3")
    works_again(site, "version 3 has 1 notes")


def test_a_page_that_fails_its_health_check(site: Project, good: str) -> None:
    site.edit("tiny/tiny/urls.py", "    return HttpResponse(", "    1 / 0\n    return HttpResponse(")
    ran = fails(site, good)
    assert "500" in ran.stderr and "ZeroDivisionError: division by zero" in ran.stderr
    site.edit("tiny/tiny/urls.py", "    1 / 0\n", "")
    site.edit("tiny/tiny/urls.py", "version 1", "version 4")
    works_again(site, "version 4 has 1 notes")


def test_a_health_path_that_is_not_there(site: Project, good: str) -> None:
    site.write(site.toml.read_text() + 'health = "/no-such-page"\n')
    site.edit("tiny/tiny/urls.py", "version 1", "version 5")
    ran = fails(site, good)
    assert "GET /no-such-page" in ran.stderr and "404" in ran.stderr


def test_settings_that_do_not_allow_the_domain(site: Project, good: str) -> None:
    site.edit("tiny/tiny/settings.py", 'os.environ["ALLOWED_HOSTS"].split(",")', '["other.example"]')
    ran = fails(site, good)
    assert "400" in ran.stderr and "ALLOWED_HOSTS" in ran.stderr and DOMAIN in ran.stderr


def test_a_release_that_dies_before_it_answers(site: Project, good: str) -> None:
    site.edit(
        "tiny/tiny/wsgi.py", "application =", 'import os\n\nprint("out of ink", flush=True)\nos._exit(3)\napplication ='
    )
    ran = fails(site, good)
    assert "out of ink" in ran.stderr


def test_one_app_that_fails_leaves_the_others_their_deploy(site: Project, host: Host, good: str) -> None:
    tiny.write(site.folder / "other")
    site.write(site.toml.read_text() + '\n[apps.other]\nsource = "other"\ndomains = ["other.example"]\n')
    site.edit("tiny/tiny/wsgi.py", "application =", "import no_such_module\n\napplication =")
    ran = site.fab("deploy")
    assert ran.status == 1 and "no_such_module" in ran.stderr
    assert "version 1 has 0 notes" in host.curl("other.example").text
    assert host.curl(DOMAIN).text == good


def test_seven_releases_leave_three(site: Project, host: Host, good: str) -> None:
    requirements = site.folder / "tiny/requirements.txt"
    for number in range(1, 8):
        place = site.folder / "tiny/tiny/urls.py"
        place.write_text(re.sub(r"version \d+", f"version 7{number}", place.read_text()))
        if number % 2 == 0:
            requirements.write_text(f"{tiny.REQUIREMENTS}asgiref>=3.{number}\n")
        site.deploy()
        assert f"version 7{number}" in host.curl(DOMAIN).text
    kept = releases(host)
    assert len(kept) == KEEP
    assert host.said("readlink", "/srv/tiny/live").rpartition("/")[2] in kept
    venvs = host.said("ls", "/srv/tiny/venvs").split()
    assert len(venvs) == 2  # of four: the releases 75, and 76 and 77
    # Each of those that are kept can be gone back to; others cannot.
    assert site.fab("rollback", "--app", "tiny").status == 0
    assert "version 76" in host.curl(DOMAIN).text
    assert site.fab("rollback", "--app", "tiny").status == 0
    assert "version 75" in host.curl(DOMAIN).text
    refused = site.fab("rollback", "--app", "tiny")
    assert refused.status == 1 and "no good release" in refused.stderr
    assert "version 75" in host.curl(DOMAIN).text
