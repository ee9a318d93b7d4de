"""A configuration file at a fixed place of the source, by `link`, and secrets that the host invents: in either slot."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

import pytest

from . import known, tiny
from .conftest import WARM
from .site import Host, Project, eventually, standing

TINY = "tiny.example"
CONFIGURATION = """\
HOST
[apps.tiny]
source = "tiny"
domains = ["tiny.example"]
database = "sqlite"
static = false
media = false
health = "/"
env = { FIELD_KEY = { secret = "FIELD", make = 40 } }

[apps.tiny.files]
"configuration.py" = { template = "configuration.py.j2", link = "tiny/configuration.py" }
"site.json" = { template = "site.json.j2", link = "conf/deep/site.json" }
"""
#: Only what the file says reaches the page: nothing of it is in the environment.
TEMPLATE = """\
COLOUR = "green"
KEY = {{ env.FIELD_KEY | python }}
if KEY == "a key that it cannot read":
    raise ValueError("no such key")
"""
URLS = """\
import hashlib
import json
from pathlib import Path

from django.http import JsonResponse
from django.urls import path

from tiny import configuration


def home(request):
    found = json.loads((Path(configuration.__file__).parent.parent / "conf/deep/site.json").read_text())
    return JsonResponse({
        "colour": configuration.COLOUR, "key": hashlib.sha256(configuration.KEY.encode()).hexdigest(), **found
    })


urlpatterns = [path("", home)]
"""
CODE = "/srv/tiny/live/code"


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("links", WARM) as host:
        project = Project(tmp_path_factory.mktemp("links"), host)
        tiny.write(project.folder / "tiny")
        (project.folder / "tiny/requirements.txt").write_text("Django>=5.2,<5.3\ndj-database-url\n")
        (project.folder / "tiny/tiny/urls.py").write_text(URLS)
        (project.folder / "tiny/tiny/configuration.py").write_text('COLOUR = KEY = "of the source"\n')
        (project.folder / "templates").mkdir()
        (project.folder / "templates/configuration.py.j2").write_text(TEMPLATE)
        (project.folder / "templates/site.json.j2").write_text('{"domain": {{ app.domains[0] | json }}}\n')
        project.write(CONFIGURATION.replace("HOST", host.table))
        project.first = project.deploy()
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def page(host: Host) -> tuple[str, str, str]:
    """(colour, hash of the key, domain) as the app reads them from the two places in its code."""
    answer = host.curl(TINY)
    assert answer.status == 200, answer
    found = json.loads(answer.body)
    return found["colour"], found["key"], found["domain"]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def kept(host: Host) -> str:
    """The invented secret, as root finds it on the host."""
    found: str = json.loads(host.said("cat", "/var/lib/deploykit/secrets/tiny.json"))["FIELD"]
    return found


def slot(host: Host) -> str:
    """The live slot; both links lead to its files, and no other slot's are there."""
    live = host.said("readlink", "/run/deploykit/tiny/live.sock").removesuffix(".sock")
    folder = f"/etc/deploykit/tiny.{live}.d"
    ends = host.said("readlink", "-e", f"{CODE}/tiny/configuration.py", f"{CODE}/conf/deep/site.json")
    assert ends.split() == [f"{folder}/configuration.py", f"{folder}/site.json"]
    assert host.sh("ls -d /etc/deploykit/tiny.*.d") == folder
    return live


def test_the_project_finds_the_files_where_it_looks_for_them(site: Project, host: Host) -> None:
    key = kept(host)
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", key)
    assert page(host) == ("green", digest(key), TINY), "and not what the source has there"
    assert slot(host) == "a"
    place = f"{CODE}/tiny/configuration.py"
    assert host.said("stat", "-L", "-c", "%A %U %G", place) == "-rw-r----- root tiny"
    assert host.said("tail", "-n", "1", place, user="tiny").strip().startswith("raise ValueError")
    assert host.run("cat", place, user="www-data", check=False).returncode != 0
    for command in (f"rm {place}", f"echo 'X = 1' >> {place}", f"ln -sfn /tmp {CODE}/../files"):
        assert host.run("sh", "-c", command, user="tiny", check=False).returncode != 0, command
    assert host.run("grep", "-rlF", key, "/srv/tiny/releases", check=False).stdout == "", "no copy of the secret"


def test_nothing_changed_changes_nothing(site: Project, host: Host) -> None:
    site.settled()
    before, key = host.programs(), kept(host)
    assert site.deploy().last == "nothing to do"
    site.edit("deploykit.toml", "make = 40", "make = 64")
    site.settled()
    assert (host.programs(), kept(host), slot(host)) == (before, key, "a"), "made once, and never again"
    listed = site.fab("secrets", "list", "--app", "tiny")
    assert re.search(r"FIELD .*yes", listed.stdout) and key not in listed.text, listed.text


def test_what_a_person_gives_counts_and_the_same_release_runs_in_the_other_slot(site: Project, host: Host) -> None:
    release = host.said("readlink", "/srv/tiny/live")
    assert site.fab("secrets", "set", "--app", "tiny", "--name", "FIELD", stdin="mine, and no other's").status == 0
    site.deploy()
    assert page(host) == ("green", digest("mine, and no other's"), TINY)
    assert (slot(host), host.said("readlink", "/srv/tiny/live")) == ("b", release)
    site.settled()
    assert site.fab("restart", "--app", "tiny").status == 0
    assert page(host)[1] == digest("mine, and no other's") and slot(host) == "a"
    site.settled()


def test_a_deploy_that_fails_leaves_the_live_slot_its_own(site: Project, host: Host) -> None:
    """It is the same release: the links led to the new files while they were tried."""
    before = host.programs()
    assert site.fab("secrets", "set", "--app", "tiny", "--name", "FIELD", stdin="a key that it cannot read").status == 0
    ran = site.fab("deploy")
    assert ran.status == 1 and "no such key" in ran.stderr, ran.text
    assert host.programs() == before and slot(host) == "a"
    host.sh("pkill -P $(supervisorctl pid tiny-a)")  # gunicorn's workers: new ones read the file again
    assert eventually(lambda: host.curl(TINY).status == 200, 10)
    assert page(host)[1] == digest("mine, and no other's")
    assert site.fab("secrets", "set", "--app", "tiny", "--name", "FIELD", stdin="mine, and no other's").status == 0
    site.settled()


def test_a_rollback_brings_the_old_file_back_to_its_place(site: Project, host: Host) -> None:
    site.edit("templates/configuration.py.j2", '"green"', '"blue"')
    site.deploy()
    assert page(host)[0] == "blue" and slot(host) == "b"
    for _ in range(2):  # each time in the other slot, to and fro
        ran = site.fab("rollback", "--app", "tiny")
        assert ran.status == 0, ran.text
        assert page(host)[0] == "green" and slot(host) in "ab"
        site.deploy()
        assert page(host)[0] == "blue" and slot(host) in "ab"
        site.settled()


def test_what_is_altered_by_hand_is_seen_and_put_right(site: Project, host: Host) -> None:
    live = slot(host)
    before = host.programs()
    host.sh("ln -sfn /etc/deploykit/tiny.x.d /srv/tiny/live/files")
    assert f"files: tiny.x.d -> tiny.{live}.d" in site.fab("plan").stdout
    site.deploy()
    assert (slot(host), host.programs()) == (live, before), "in place"
    host.sh(f"ln -sf /tmp/mine.py {CODE}/tiny/configuration.py")
    plan = site.fab("plan")
    assert "tiny/configuration.py was altered on the host" in plan.stdout, plan.text
    site.deploy()
    assert page(host)[0] == "blue" and slot(host) != live
    site.settled()


def test_a_build_may_not_put_something_else_there(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    site.write(f'{text}\n[apps.tiny.hooks]\nafter_checkout = "cat tiny/configuration.py > tiny/made.py"\n')
    site.deploy()
    assert page(host)[0] == "blue" and slot(host) in "ab"
    assert "blue" in host.said("cat", f"{CODE}/tiny/made.py")
    site.settled()
    site.write(f'{text}\n[apps.tiny.hooks]\nafter_install = "rm tiny/configuration.py; touch tiny/configuration.py"\n')
    ran = site.fab("deploy")
    assert ran.status == 1 and "the build has put something else at tiny/configuration.py" in ran.stderr, ran.text
    assert page(host)[0] == "blue" and slot(host) in "ab"
    site.write(text)
    site.deploy()
    assert page(host)[0] == "blue"
    site.settled()
    (site.folder / "tiny/conf/deep/site.json").mkdir(parents=True)
    (site.folder / "tiny/conf/deep/site.json/x").write_text("")
    ran = site.fab("deploy")
    assert ran.status == 1 and "conf/deep/site.json is a folder in the source" in ran.stderr, ran.text
    assert page(host)[0] == "blue" and slot(host) in "ab"


SHAPE = {
    "requirements.txt": "Django>=5.2,<5.3\npsycopg[binary]\ndjango-rq\n",
    "netbox/manage.py": (
        "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'netbox.settings')\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    ),
    "netbox/netbox/__init__.py": "",
    "netbox/netbox/wsgi.py": "from django.core.wsgi import get_wsgi_application as got\napplication = got()\n",
    "netbox/netbox/settings.py": """\
import importlib

configuration = importlib.import_module("netbox.configuration")
for name in ("ALLOWED_HOSTS", "SECRET_KEY", "API_TOKEN_PEPPERS", "DATABASES", "REDIS"):
    globals()[name] = getattr(configuration, name)
if any(len(each) < 50 for each in (SECRET_KEY, *API_TOKEN_PEPPERS.values())):
    raise ValueError("too short")
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_rq"]
ROOT_URLCONF = "netbox.urls"
USE_TZ = True
CACHES = {"default": {
    "BACKEND": "django.core.cache.backends.redis.RedisCache",
    "LOCATION": "redis://:{PASSWORD}@{HOST}:{PORT}/{DATABASE}".format(**REDIS["caching"]),
}}
RQ_QUEUES = {
    name: {"DB": 0, **{key: REDIS["tasks"][key] for key in ("HOST", "PORT", "PASSWORD")}}
    for name in ("high", "default", "low")
}
""",
    "netbox/netbox/jobs.py": """\
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache


def count(word):
    cache.set("done", f"{word}: {ContentType.objects.count()}")
""",
    "netbox/netbox/urls.py": """\
import django_rq
from django.conf import settings
from django.core.cache import cache
from django.http import JsonResponse
from django.urls import path

from netbox.jobs import count


def home(request):
    if word := request.GET.get("word"):
        django_rq.get_queue("low").enqueue(count, word)
    return JsonResponse({"done": cache.get("done"), "pepper": settings.API_TOKEN_PEPPERS[1]})


urlpatterns = [path("", home)]
""",
}


def test_a_project_of_netbox_s_shape(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the block in docs/projects.md, word for word: its settings read that file and no environment."""
    with standing("shape", WARM) as host:
        project = Project(tmp_path_factory.mktemp("shape"), host)
        for name, text in SHAPE.items():
            place = project.folder / "netbox" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        known.write(project, "NetBox")
        project.deploy()

        def answer(path: str = "/") -> dict[str, str | None]:
            got = host.curl("inventory.example", path)
            assert got.status == 200, got
            found: dict[str, str | None] = json.loads(got.body)
            return found

        pepper = answer("/?word=first")["pepper"]
        assert pepper is not None and re.fullmatch(r"[A-Za-z0-9_-]{64}", pepper)
        assert eventually(lambda: (answer()["done"] or "").startswith("first: "), 20), answer()
        project.settled()
        (project.folder / "netbox/netbox/netbox/more.py").write_text("")
        project.deploy()
        assert answer("/?word=second")["pepper"] == pepper, "hashed with it, tokens go on to be good"
        assert eventually(lambda: (answer()["done"] or "").startswith("second: "), 20), answer()
        project.settled()
