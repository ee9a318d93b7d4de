"""Commands of the user's at a deploy's steps, what outlives releases, and configuration files outside of them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, eventually, standing

TINY = "tiny.example"
HOOKS = "[apps.tiny.hooks]"
#: What breaks a text that is put into another one as it is.
DIFFICULT = "a'b\"c\\d$e`f #g{{h}}%i é\nthe second line"

CONFIGURATION = """\
HOST
[apps.tiny]
source = "tiny"
domains = ["tiny.example"]
database = "sqlite"
settings = "local_settings"
static = false
media = false
persist = ["uploads/", "conf/site.json", "notes.txt"]
env = { PASSWORD = { secret = "DIFFICULT" }, GREETING = "hello from ${app.name}" }
collectstatic = ["--ignore", "*.scss"]
health = "/"

[apps.tiny.files]
"local_settings.py" = { template = "tiny/local.py.j2", pythonpath = true }
"site.yaml" = "tiny/site.yaml.j2"
"plain.json" = "tiny/plain.json.j2"

[apps.tiny.hooks]
after_checkout = ["sh build.sh after_checkout", "sh make.sh"]
after_install = "sh build.sh after_install"
before_collectstatic = "sh build.sh before_collectstatic"
after_collectstatic = "sh build.sh after_collectstatic; touch $STATIC_ROOT/made.css"
before_migrate = "sh build.sh before_migrate"
after_migrate = "sh build.sh after_migrate '${app.domain}' '${files.dir}'"
first_deploy = "sh build.sh first_deploy; sh first.sh"

[apps.tiny.nginx.locations]
"/front/" = { folder = "front/dist" }
"/uploads/" = { folder = "uploads" }
"""

#: Notes who runs it where, with what: one JSON line for each step.
BUILD = """\
set -e
python3 - "$@" <<'END' >> "$HOME/steps"
import getpass, json, os, shutil, sys
print(json.dumps({
    "step": sys.argv[1], "more": sys.argv[2:], "user": getpass.getuser(), "folder": os.getcwd(),
    "venv": os.environ.get("VIRTUAL_ENV", ""), "python": shutil.which("python") or "", "input": sys.stdin.read(),
    "greeting": os.environ["GREETING"], "settings": os.environ["DJANGO_SETTINGS_MODULE"],
    "tables": os.path.exists(os.environ["DATABASE_NAME"]) and os.path.getsize(os.environ["DATABASE_NAME"]) > 0,
    "names": sorted(os.environ),
}))
END
"""
#: A build as npm's: what it makes is new in a folder of its own, and it alters a file of the source.
MAKE = """\
mkdir -p front/dist/js node_modules/pack
echo 'console.log(1)' > front/dist/js/app.js
ln -s js/app.js front/dist/main.js
echo rubbish > node_modules/pack/index.js
echo 'made = "by the build"' > tiny/made.py
echo 'version = "built"' > tiny/version.py
echo 'the build was here'
"""
URLS = """\
import hashlib
import os

from django.conf import settings
from django.http import JsonResponse
from django.urls import path

from notes.models import Note
from tiny.made import made
from tiny.version import version


def home(request):
    return JsonResponse({
        "release": 1, "notes": Note.objects.count(), "made": made, "version": version, "pid": os.getppid(),
        "password": settings.PASSWORD, "colour": settings.COLOUR, "settings": settings.SETTINGS_MODULE,
        "names": sorted(os.environ),
    })


urlpatterns = [path("", home)]
"""
LOCAL = """\
# of {{ app.name }} for {{ ref["app.domain"] }}
from tiny.settings import *

PASSWORD = {{ env.PASSWORD | python }}
COLOUR = "green"
MEDIA_ROOT = {{ env.DEPLOYKIT_CODE | python }} + "/sent"
STATIC_URL = "/static/"
STATIC_ROOT = {{ ref["static.root"] | python }}
INSTALLED_APPS += ["django.contrib.staticfiles"]

from django.core.checks import Error, register


@register("mail", deploy=True)
def mail(app_configs, **options):
    from notes.models import Note

    Note.objects.count()  # at the first deploy there is no such table yet
    return [Error("the mail server does not answer")]
"""


def first(host: Host) -> str:
    """What has been noted so far of the steps."""
    return host.said("cat", "/srv/tiny/home/steps")


def steps(host: Host) -> list[dict[str, object]]:
    return [json.loads(line) for line in first(host).splitlines()]


def page(host: Host) -> dict[str, object]:
    answer = host.curl(TINY)
    assert answer.status == 200, answer
    found: dict[str, object] = json.loads(answer.body)
    return found


@contextlib.contextmanager
def hook(site: Project, command: str) -> Iterator[None]:
    """Meanwhile the build is this command."""
    site.edit("deploykit.toml", '"sh make.sh"', f'"{command}"')
    yield
    site.edit("deploykit.toml", f'"{command}"', '"sh make.sh"')


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("build", WARM) as host:
        project = Project(tmp_path_factory.mktemp("build"), host)
        tiny.write(project.folder / "tiny")
        files = {
            "requirements.txt": "Django>=5.2,<5.3\ndj-database-url\n",
            "tiny/urls.py": URLS,
            "tiny/version.py": 'version = "of the source"\n',
            "build.sh": BUILD,
            "make.sh": MAKE,
            "first.sh": "echo not yet; exit 3\n",
            "uploads/readme.txt": "of git\n",
            "notes.txt": "of git\n",
        }
        for name, text in files.items():
            place = project.folder / "tiny" / name
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
        templates = project.folder / "templates/tiny"
        templates.mkdir(parents=True)
        (templates / "local.py.j2").write_text(LOCAL)
        (templates / "site.yaml.j2").write_text(
            "greeting: {{ env.GREETING | json }}\npassword: {{ env.PASSWORD | json }}\n"
        )
        (templates / "plain.json.j2").write_text('{"colour": "red"}\n')
        project.write(CONFIGURATION.replace("HOST", host.table))
        held = project.fab("secrets", "set", "--app", "tiny", "--name", "DIFFICULT", stdin=DIFFICULT)
        assert held.status == 0, held.text
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def test_a_first_deploy_that_fails_after_its_migration(site: Project, host: Host) -> None:
    """It is no first deploy any more for the database, but the command of it has not succeeded yet."""
    ran = site.fab("deploy")
    assert ran.status == 1, ran.text
    assert "`sh build.sh first_deploy; sh first.sh` of tiny (first_deploy) ended with 3" in ran.text
    assert "not yet" in ran.stderr and "[apps.tiny.hooks] first_deploy" in ran.stderr
    (site.folder / "tiny/first.sh").write_text("echo done >> $HOME/first\n")
    site.deploy("--verbose")
    assert host.said("cat", "/srv/tiny/home/first") == "done"


def test_hooks_run_in_order_as_the_app_with_its_environment(host: Host) -> None:
    order = [
        "after_checkout", "after_install", "before_collectstatic", "after_collectstatic", "before_migrate",
        "after_migrate", "first_deploy",
    ]  # fmt: skip
    assert [each["step"] for each in steps(host)] == [*order, *order], "once for each of two deploys"
    release = host.said("readlink", "-f", "/srv/tiny/live")
    venv = host.said("readlink", "-f", "/srv/tiny/live/venv")
    slot = host.said("readlink", "/run/deploykit/tiny/live.sock").removesuffix(".sock")
    names = page(host)["names"]
    for each in steps(host)[-7:]:
        assert (each["user"], each["folder"], each["input"]) == ("tiny", f"{release}/code", ""), each
        assert (each["greeting"], each["settings"]) == ("hello from tiny", "local_settings")
        before = each["step"] == "after_checkout"
        assert (each["venv"], each["python"]) == (("", "") if before else (venv, f"{venv}/bin/python")), each
        assert isinstance(each["names"], list) and isinstance(names, list)
        # a shell and supervisor each add of their own
        own = {"PWD", "OLDPWD", "_", "SHLVL", "SERVER_SOFTWARE", "LC_CTYPE", "TZ"}
        lacking = {name for name in names if not name.startswith(("SUPERVISOR_", "DEPLOYKIT_PROCESS"))}
        lacking -= {*each["names"], *own, "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID"}
        assert lacking <= ({"VIRTUAL_ENV"} if before else set()) | {"GUNICORN_PID", "LISTEN_FDNAMES"}, lacking
        assert {*each["names"]} - {*names} <= own, each["names"]
    assert steps(host)[-2]["more"] == [TINY, f"/etc/deploykit/tiny.{slot}.d"]
    assert [each["tables"] for each in steps(host)[:7]] == [False] * 5 + [True] * 2


def test_what_hooks_made_is_the_releases_and_not_the_apps_to_change(site: Project, host: Host) -> None:
    assert page(host)["made"] == "by the build" and page(host)["version"] == "built"
    for place in (
        "code/tiny/made.py",
        "code/front/dist/js/app.js",
        "code/tiny/version.py",
        "code/new.txt",
        "code/tiny",
    ):
        for command in (
            f"echo x >> /srv/tiny/live/{place}",
            f"touch /srv/tiny/live/{place}",
            f"rm -r /srv/tiny/live/{place}",
        ):
            assert host.run("sh", "-c", command, user="tiny", check=False).returncode != 0, command
    assert host.sh("find /srv/tiny/live/code/ -user tiny") == ""
    assert host.said("cat", "/srv/tiny/live/static/made.css", user="www-data") == ""
    ran = site.deploy()
    assert ran.last == "nothing to do" and len(steps(host)) == 14
    site.settled()
    host.sh("echo 'altered = 1' >> /srv/tiny/live/code/tiny/made.py")
    assert "tiny/made.py was altered on the host" in site.fab("plan").stdout
    site.deploy()
    assert host.said("cat", "/srv/tiny/live/code/tiny/made.py") == 'made = "by the build"'


def test_nginx_may_read_what_it_serves_and_nothing_else(host: Host) -> None:
    live = "/srv/tiny/live"
    assert host.said("cat", f"{live}/public/front/dist/js/app.js", user="www-data") == "console.log(1)"
    assert host.said("cat", f"{live}/public/front/dist/main.js", user="www-data") == "console.log(1)"
    assert host.run("cat", f"{live}/code/front/dist/js/app.js", user="www-data", check=False).returncode != 0
    assert host.run("ls", live, user="www-data", check=False).returncode != 0
    assert host.said("cat", "/srv/tiny/persist/uploads/readme.txt", user="www-data") == "of git"
    host.run(
        "sh", "-c", f"umask 027; mkdir -p {live}/code/uploads/2/3; echo new > {live}/code/uploads/2/3/a", user="tiny"
    )
    assert host.said("cat", "/srv/tiny/persist/uploads/2/3/a", user="www-data") == "new"
    for path, text in {
        "/front/main.js": "console.log(1)",
        "/uploads/2/3/a": "new",
        "/uploads/readme.txt": "of git",
    }.items():
        answer = host.curl(TINY, path)
        assert (answer.status, answer.text.strip()) == (200, text), answer


def test_what_persists_outlives_a_release_and_git_does_not_overwrite_it(site: Project, host: Host) -> None:
    write = (
        "cd /srv/tiny/live/code; echo mine > notes.txt; echo mine > uploads/readme.txt; "
        "echo '{}' > conf/site.json; rm -r uploads/2"
    )
    host.run("sh", "-c", write, user="tiny")
    host.run("sh", "-c", "echo sent > /srv/tiny/live/code/sent/a", user="tiny")
    site.edit("tiny/tiny/urls.py", '"release": 1', '"release": 2')
    (site.folder / "tiny/notes.txt").write_text("of git, newer\n")
    host.run("rm", "-f", "/srv/tiny/home/steps")
    site.deploy()
    assert page(host)["release"] == 2 and page(host)["version"] == "built"
    assert [each["step"] for each in steps(host)][-1] == "after_migrate", "the first deploy is over"
    for path, text in {"notes.txt": "mine", "uploads/readme.txt": "mine", "conf/site.json": "{}"}.items():
        assert host.said("cat", f"/srv/tiny/live/code/{path}", user="tiny") == text
        assert host.said("cat", f"/srv/tiny/persist/{path}") == text
    assert host.run("test", "-e", "/srv/tiny/persist/uploads/2", check=False).returncode != 0
    assert host.said("cat", "/srv/tiny/live/code/sent/a") == host.said("cat", "/srv/tiny/data/media/a") == "sent"


def test_a_configuration_file_has_its_secrets_and_only_the_app_reads_it(site: Project, host: Host) -> None:
    found = page(host)
    assert (found["password"], found["colour"], found["settings"]) == (DIFFICULT, "green", "local_settings")
    slot = host.said("readlink", "/run/deploykit/tiny/live.sock").removesuffix(".sock")
    folder = f"/etc/deploykit/tiny.{slot}.d"
    assert host.said("stat", "-c", "%A %U %G", folder, f"{folder}/local_settings.py", f"{folder}/site.yaml") == (
        "drwxr-x--- root tiny\n-rw-r----- root tiny\n-rw-r----- root tiny"
    )
    yaml = "import sys, json; print(json.dumps([json.loads(l.split(': ', 1)[1]) for l in sys.stdin]))"
    assert json.loads(host.sh(f'python3 -c "{yaml}" < {folder}/site.yaml')) == ["hello from tiny", DIFFICULT]
    assert host.sh("ls -d /etc/deploykit/tiny.*.d") == folder


def test_a_changed_one_is_planned_without_its_secrets_and_a_rollback_brings_it_back(site: Project, host: Host) -> None:
    site.edit("templates/tiny/local.py.j2", '"green"', '"blue"')
    plan = site.fab("plan")
    assert plan.status == 2 and "local_settings.py content: (secret) -> (secret)" in plan.stdout, plan.text
    site.edit("templates/tiny/site.yaml.j2", "greeting:", "salute:")
    site.edit("templates/tiny/plain.json.j2", "red", "pink")
    plan = site.fab("plan")
    assert '-{"colour": "red"}' in plan.stdout and '+{"colour": "pink"}' in plan.stdout, plan.text
    assert "second line" not in plan.text and "salute" not in plan.text, plan.text
    site.deploy()
    assert page(host)["colour"] == "blue"
    ran = site.fab("rollback", "--app", "tiny")
    assert ran.status == 0, ran.text
    assert page(host)["colour"] == "green"
    site.deploy()
    assert page(host)["colour"] == "blue"
    site.settled()


def test_a_failing_hook_leaves_the_live_release_serving(site: Project, host: Host) -> None:
    before = host.programs()
    with hook(site, "sh make.sh; env; echo the moon is wrong; exit 7"):
        ran = site.fab("deploy", "--verbose")
        assert ran.status == 1, ran.text
        assert "env; echo the moon is wrong; exit 7` of tiny (after_checkout) ended with 7" in ran.stderr
        assert "the moon is wrong" in ran.stderr and "the live release is untouched" in ran.stderr
        assert "tiny: hook after_checkout: sh build.sh after_checkout" in ran.stdout
        assert "tiny | the build was here" in ran.stdout
        secrets = json.loads(host.said("cat", "/var/lib/deploykit/secrets/tiny.json"))
        assert "tiny | SECRET_KEY=(secret)" in ran.stdout and secrets["SECRET_KEY"] not in ran.text
        assert "the second line" not in ran.text
        assert host.programs() == before and page(host)["colour"] == "blue"
        assert len(host.sh("ls /srv/tiny/releases").split()) <= 5
    site.edit("deploykit.toml", '"front/dist"', '"front/build"')
    ran = site.fab("deploy")
    assert ran.status == 1 and "the folder front/build, which nginx is to serve, is not there" in ran.stderr, ran.text
    site.edit("deploykit.toml", '"front/build"', '"front/dist"')
    site.deploy()  # nginx alone
    site.edit("deploykit.toml", "media = false", "media = true")
    site.edit("templates/tiny/local.py.j2", "/sent", "/uploads/sent")
    ran = site.fab("deploy")
    assert ran.status == 1 and "MEDIA_ROOT of tiny is in `persist`" in ran.stderr, ran.text
    site.edit("deploykit.toml", "media = true", "media = false")
    site.edit("templates/tiny/local.py.j2", "/uploads/sent", "/sent")
    site.deploy()


def test_a_hook_that_leads_root_astray_gets_nowhere(site: Project, host: Host) -> None:
    trap = "rm -rf tiny/__pycache__; ln -s /root tiny/__pycache__; ln -s /root notes/migrations/more; mkfifo pipe"
    with hook(site, f"sh make.sh; {trap}"):
        site.deploy()
        assert host.sh("find /root -newer /srv/tiny/live/venv ! -path '*/.*'") == ""
        assert host.said("stat", "-c", "%U %a", "/root") == "root 700"
    with hook(site, "sh make.sh; ln -s /root front/dist/out"):
        ran = site.fab("deploy")
        assert ran.status == 1 and "front/dist/out is a link that leads out" in ran.stderr, ran.text
    site.deploy()


def test_a_hook_that_never_ends_can_be_left_and_ended(site: Project, host: Host) -> None:
    with hook(site, "sh make.sh; echo dozing; sleep 987654"):
        argv, env = site.command("deploy", "--verbose")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=site.folder, env=env) as fab:
            assert fab.stdout is not None
            assert any("tiny | dozing" in line for line in fab.stdout), "told as it comes"
            fab.send_signal(signal.SIGINT)
        assert fab.returncode != 0
        assert host.run("pgrep", "-u", "tiny", "-f", "^sleep 987654").returncode == 0, "it goes on on the host"
        host.run("pkill", "-u", "tiny", "-f", "^sleep 987654")
        assert eventually(
            lambda: host.run("flock", "-n", "/var/lib/deploykit/lock", "true", check=False).returncode == 0, 10
        )
    site.settled()
    assert page(host)["colour"] == "blue"


def test_without_hooks_the_code_is_of_the_source_again(site: Project, host: Host) -> None:
    """No file that a build altered is taken for the original."""
    text = site.toml.read_text()
    head, _, rest = text.partition(HOOKS)
    site.write(head + rest.partition("\n\n")[2].replace("front/dist", "tiny"))
    (site.folder / "tiny/tiny/made.py").write_text('made = "by hand"\n')
    ran = site.deploy("--verbose")
    assert "`check --deploy` fails, and `check` does not" in ran.text and "the mail server does not answer" in ran.text
    assert (page(host)["version"], page(host)["made"]) == ("of the source", "by hand")
    assert host.run("test", "-e", "/srv/tiny/live/code/node_modules", check=False).returncode != 0
    site.settled()


def test_data_is_deleted_only_when_asked_for(site: Project, host: Host) -> None:
    assert site.fab("remove-app", "tiny").status == 0
    assert host.said("cat", "/srv/tiny/persist/notes.txt") == "mine"
    site.write(CONFIGURATION.replace("HOST", host.table))
    ran = site.fab("remove-app", "tiny", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert host.run("test", "-e", "/srv/tiny/persist", check=False).returncode != 0
