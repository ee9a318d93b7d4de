"""Apps on one host are strangers to one another; and each finds in its environment what its owner wrote."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import WARM
from .site import Host, Project, standing

APPS = ("memories", "links", "reader")

#: As somebody tried to break it: what shells, supervisor, systemd, ini files and TOML each treat in their own way.
VALUES = {
    "PLAIN": "plain",
    "EMPTY": "",
    "PERCENT": "100% %s %(ENV_HOME)s %%",
    "HASH": "# not a comment # at all",
    "DOLLAR": "$HOME $$ $(id) $1 $",
    "REFERENCE": "{$}{links} $${database.host} $${",
    "AMPERSAND": "a & b && c | d ; e > f < g",
    "QUOTES": "\"double\" 'single' `back` '\"'\"'",
    "BACKSLASH": r"C:\new\table \\ \n \ ",
    "SPACES": "  two before, two after  ",
    "COMMAS": "a,b, c,,",
    "LINES": "first\nsecond\n\nfourth\ttab\n",
    "JSON": '{"key": ["a b", "c\\"d", null, "$x"], "ü": "%"}',
    "LETTERS": "Grüße, 日本語 🦊 é",
    "EXCLAMATION": "!history !! ~root * ? [a-z] {a,b}",
    "PASSWORD": "p@ss:w/rd?x=1#%24&\\'\"",
}
#: `$$` before `{` stands for one `$` and no reference, as the reference of the configuration says.
ARRIVES = {**VALUES, "REFERENCE": "{$}{links} ${database.host} ${", "DB_HOST": "/var/run/postgresql", "OWN": "<links>"}

_TRY = """
import json, os, socket, stat, sys

def reached(path):
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISSOCK(kind):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
        elif stat.S_ISDIR(kind):
            os.listdir(path)
        else:
            open(path, "rb").read(1)
    except PermissionError:
        return "refused"
    except FileNotFoundError:
        return "absent"
    except ConnectionRefusedError:
        return "nobody listens"
    return "reached"

print(json.dumps({path: reached(path) for path in sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    own = {**VALUES, "DB_HOST": "${database.host}", "OWN": "<${database.user}>"}
    table = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in own.items())
    with standing("wall", WARM) as host:
        project = Project(tmp_path_factory.mktemp("wall"), host)
        project.three(lambda text: f"{text}\n[apps.links.env]\n{table}")
        project.deploy()
        host.sh("runuser -u memories -- sh -c 'mkdir -p /srv/memories/media/x; echo x > /srv/memories/media/x/p.txt'")
        for app in APPS:
            host.sh(
                f"runuser -u {app} -- sh -c 'umask 027; echo x > /srv/{app}/data/own; echo x > /srv/{app}/home/own'"
            )
            host.sh(f"echo x > /var/backups/deploykit/{app}/own")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def attempts(host: Host, user: str, *paths: str) -> dict[str, str]:
    """What became of reading each file, listing each folder, connecting to each socket as a user."""
    found: dict[str, str] = json.loads(host.said("python3", "-c", _TRY, *paths, user=user))
    return found


@functools.cache
def slot(host: Host, app: str) -> str:
    return host.said("readlink", f"/run/deploykit/{app}/live.sock").removesuffix(".sock")


@functools.cache
def own(host: Host, app: str) -> list[str]:
    """What an app itself reaches and no other app may."""
    code = f"/srv/{app}/live/code/" + ("src/manage.py" if app == "reader" else "manage.py")
    found = [
        *(code, f"/srv/{app}/live/code", f"/srv/{app}/data", f"/srv/{app}/data/own", f"/srv/{app}/home"),
        *(f"/srv/{app}/home/own", f"/srv/{app}/live/static", host.sh(f"echo /srv/{app}/venvs/*")),
        *(f"/etc/deploykit/{app}.env", f"/etc/deploykit/{app}.{slot(host, app)}.env"),
        f"/run/{app}",
        f"/proc/{host.programs()[f'{app}-{slot(host, app)}']}/environ",
    ]
    if app == "links":
        found += ["/etc/deploykit/redis-links.conf", "/run/redis-links", "/run/redis-links/redis.sock"]
    if app == "memories":
        found += ["/srv/memories/media", "/srv/memories/media/x/p.txt"]
    if app == "reader":
        found += ["/srv/reader/data/db.sqlite3"]
    return found


@functools.cache
def sockets(host: Host, app: str) -> list[str]:
    """What nginx alone reaches: not even the app itself, which has them open."""
    return [f"/run/deploykit/{app}", *(f"/run/deploykit/{app}/{each}.sock" for each in ("live", slot(host, app)))]


@functools.cache
def roots(host: Host) -> list[str]:
    """What belongs to root alone."""
    state = "/var/lib/deploykit"
    found = [f"{state}/{name}" for name in ("manifest.json", "journal.jsonl", "lock", "secrets", "apps", "runs")]
    found += [f"{state}/secrets/{app}.json" for app in APPS] + [f"{state}/apps/{app}.json" for app in APPS]
    found += host.sh(f"ls {state}/runs/*.jsonl").split()
    found += ["/var/backups/deploykit", *(f"/var/backups/deploykit/{app}/own" for app in APPS)]
    found += ["/run/supervisor.sock", *host.sh("ls /var/log/deploykit/*.log").split()]
    found += [f"/srv/{app}/live/release.json" for app in APPS]
    return found


@pytest.mark.parametrize("app", APPS)
def test_an_app_reaches_nothing_of_another(host: Host, app: str) -> None:
    mine = own(host, app)
    assert attempts(host, app, *mine) == dict.fromkeys(mine, "reached")
    others = [path for other in APPS if other != app for path in own(host, other)]
    assert attempts(host, "root", *others) == dict.fromkeys(others, "reached")
    assert attempts(host, app, *others) == dict.fromkeys(others, "refused")
    every = [path for each in APPS for path in sockets(host, each)]
    assert attempts(host, "www-data", *every) == dict.fromkeys(every, "reached")
    assert attempts(host, app, *every) == dict.fromkeys(every, "refused")


@pytest.mark.parametrize("app", [*APPS, "www-data", "nobody"])
def test_nobody_reaches_what_is_roots(host: Host, app: str) -> None:
    paths = roots(host)
    assert attempts(host, "root", *paths) == dict.fromkeys(paths, "reached")
    assert attempts(host, app, *paths) == dict.fromkeys(paths, "refused")


def test_nginx_reaches_static_and_media_and_nothing_else(host: Host) -> None:
    css = "/srv/memories/live/static/photos/memories.css"
    may = [css, "/srv/memories/media/x/p.txt", *(f"/run/deploykit/{app}/live.sock" for app in APPS)]
    assert attempts(host, "www-data", *may) == dict.fromkeys(may, "reached")
    for app in APPS:
        open_to_it = ("/static", "/media", f"/run/{app}")
        paths = [path for path in own(host, app) if not any(part in path for part in open_to_it)]
        assert len(paths) > 8
        assert attempts(host, "www-data", *paths) == dict.fromkeys(paths, "refused")


@pytest.mark.parametrize("app", APPS)
def test_databases_open_to_their_own_app_only(host: Host, app: str) -> None:
    def psql(*words: str) -> tuple[int, str]:
        done = host.run("env", "PGCONNECT_TIMEOUT=5", "psql", "-Xwt", *words, "-c", "SELECT 1", check=False, user=app)
        return done.returncode, done.stderr

    for database in ("memories", "links"):
        if database == app:
            assert psql("-d", database) == (0, "")
            continue
        status, words = psql("-d", database)
        assert status == 2 and ("permission denied for database" in words or "does not exist" in words), words
        status, words = psql("-d", database, "-U", database)
        assert status == 2 and "Peer authentication failed" in words, words
        status, words = psql("-d", database, "-U", database, "-h", "localhost")
        assert status == 2 and "no password supplied" in words, words
    assert psql("-d", "postgres", "-U", "postgres")[0] == 2


@pytest.mark.parametrize("app", APPS)
def test_an_app_cannot_rewrite_itself_nor_the_host(host: Host, app: str) -> None:
    touched = [
        *(f"/srv/{app}/new", f"/srv/{app}/releases/new", f"/srv/{app}/venvs/new", f"/srv/{app}/live/code/new.py"),
        *(host.sh(f"echo /srv/{app}/venvs/*/bin/python"), f"/etc/deploykit/{app}.env", "/etc/deploykit/new"),
        *(f"/var/backups/deploykit/{app}/new", "/var/lib/deploykit/new", "/var/log/deploykit/new", "/run/new"),
    ]
    script = 'for path; do if touch "$path" 2>/dev/null; then echo "$path"; fi; done'
    assert host.said("sh", "-c", script, "sh", *touched, user=app) == ""
    written = [f"/srv/{app}/data/new", f"/srv/{app}/home/new"]
    assert host.said("sh", "-c", script, "sh", *written, user=app).split() == written
    others = [pid for name, pid in host.programs().items() if not name.startswith(f"{app}-")]
    assert len(others) == 2
    for pid in others:
        assert "not permitted" in host.run("kill", "-0", pid, check=False, user=app).stderr


def test_processes_are_their_apps_own(host: Host) -> None:
    lines = [line.split(None, 1) for line in host.said("ps", "-eo", "user:32,args").splitlines()]
    for app in APPS:
        users = {user for user, args in lines if f"/etc/deploykit/{app}." in args or f"/run/redis-{app}/" in args}
        assert users == {app}


def test_no_secret_in_what_everybody_may_read(host: Host) -> None:
    """SECRET_KEY was made on the host: it is in its store and in the app's environment file, and nowhere else."""
    for app in APPS:
        key = json.loads(host.said("cat", f"/var/lib/deploykit/secrets/{app}.json"))["SECRET_KEY"]
        assert len(key) >= 50
        found = host.run(
            "grep", "-rlF", "--", key, "/etc", "/srv", "/var/lib/deploykit", "/var/log", "/opt", check=False
        )
        file = f"/etc/deploykit/{app}.{slot(host, app)}.env"
        assert set(found.stdout.split()) == {file, f"/var/lib/deploykit/secrets/{app}.json"}
        assert host.said("stat", "--format=%a %U %G", file) == f"640 root {app}"


def environment(text: str) -> dict[str, str]:
    pairs = (each.partition("=") for each in text.split("\0") if each)
    return {name: value for name, _, value in pairs}


def test_values_arrive_in_the_web_process(host: Host) -> None:
    master = host.programs()[f"links-{slot(host, 'links')}"]
    pids = [master, *host.said("pgrep", "-P", master).split()]
    assert len(pids) > 1
    for pid in pids:
        found = environment(host.run("cat", f"/proc/{pid}/environ").stdout)
        assert {name: found.get(name) for name in ARRIVES} == ARRIVES


def test_values_arrive_in_management_commands(host: Host) -> None:
    python = host.sh("echo /srv/links/venvs/*/bin/python")
    code = "import json, os; print('environment:' + json.dumps(dict(os.environ)))"
    command = (
        "/usr/local/lib/deploykit/with-env",
        "/etc/deploykit/links.env",
        python,
        "manage.py",
        "shell",
        "-c",
        code,
    )
    said = host.said("env", "--chdir=/srv/links/live/code", *command, user="links")
    found = json.loads(said.partition("environment:")[2].splitlines()[0])
    assert {name: found.get(name) for name in ARRIVES} == ARRIVES


def test_values_arrive_in_a_shell(host: Host) -> None:
    for shell in ("dash", "bash"):
        found = environment(host.run(shell, "-c", ". /etc/deploykit/links.env; env -0", user="links").stdout)
        assert {name: found.get(name) for name in ARRIVES} == ARRIVES


def test_apps_find_what_they_expect(host: Host) -> None:
    found = environment(host.run("sh", "-c", ". /etc/deploykit/links.env; env -0", user="links").stdout)
    expected = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ALLOWED_HOSTS", "STATIC_ROOT", "MEDIA_ROOT"}
    assert expected | {"DJANGO_SETTINGS_MODULE"} <= set(found)
    assert found["ALLOWED_HOSTS"] == "links.example" and found["DJANGO_SETTINGS_MODULE"] == "links_site.settings"


def test_an_app_opens_no_ssh_for_itself(host: Host, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    into = "umask 077; mkdir -p /srv/links/home/.ssh; cat >>/srv/links/home/.ssh/authorized_keys"
    host.run("sh", "-c", f'{into} <<"END"\n{public}\nEND', user="links")
    options = ["-F", "/dev/null", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    options += [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ExitOnForwardFailure=yes",
    ]
    there = f"links@{host.address}"
    for words in (
        ["ssh", *options, there, "id"],
        ["sftp", *options, there],
        ["ssh", *options, "-W", "127.0.0.1:22", there],
    ):
        done = subprocess.run(words, input="", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 255 and "Permission denied" in done.stderr, (words, done)
    for user in ("root", "deploy"):
        assert host.machine.run("id", "-un", user=user).stdout.decode().strip() == user
