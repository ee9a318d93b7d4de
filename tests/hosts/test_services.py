"""Brokers, caches and what a database has, on one host: each does its job, and only for its app.

Judged by redis-cli, psql, ss, rabbitmqctl and by the libraries that projects use, with what the environment tells them.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, named, standing

ONE = """\
[apps.one]
source = "tiny"
domains = ["one.example"]
static = false
cache = "memcached"
redis = { memory = 6 }
env = { QUEUE_URL = "unix://${broker.socket}?db=3", VHOST = "${events.vhost}" }

[apps.one.database]
extensions = ["pg_trgm", "uuid-ossp"]

[apps.one.database.settings]
statement_timeout = "31s"
search_path = "public, extra"

[apps.one.services]
broker = { kind = "redis", persistent = true, memory = 6 }
sessions = { kind = "redis", port = 6401 }
events = { kind = "rabbitmq" }
"""
TWO = """\
[apps.two]
source = "tiny"
domains = ["two.example"]
static = false
cache = "redis"
broker = "rabbitmq"
services = { pages = { kind = "memcached" } }
database = { extensions = ["citext"] }
"""
SECRETS = ("REDIS_SESSIONS_PASSWORD", "RABBITMQ_PASSWORD")

#: What a project's own libraries find with the variables; run as the app, with its environment.
_USE = """
import json, os, sys
import django
from django.conf import settings
from django.core.cache import caches
from kombu import Connection
import redis

def cached(backend, location):
    backend = f"django.core.cache.backends.{backend}"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": location}}
    caches.__init__()
    caches["default"].set("greeting", os.environ["DJANGO_SETTINGS_MODULE"], 60)
    return caches["default"].get("greeting")

def queued(url):
    with Connection(url, connect_timeout=5) as connection:
        with connection.SimpleQueue("deploykit") as queue:
            queue.put({"task": "thumbnail"})
            message = queue.get(timeout=5)
            message.ack()
            return message.payload["task"]

def attempted(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def database(url):
    client = redis.from_url(url)
    client.set("here", "1")
    return [client.connection_pool.connection_kwargs.get("db"), client.get("here").decode()]

def main():
    known = {"cached": cached, "queued": queued, "database": database}
    asked = json.load(sys.stdin)
    print(json.dumps([attempted(known[name], *arguments) for name, *arguments in asked]))

main()
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("svc", WARM) as host:
        project = Project(tmp_path_factory.mktemp("services"), host)
        tiny.write(project.folder / "tiny")
        with (project.folder / "tiny/requirements.txt").open("a") as file:
            file.write("kombu[redis]\npackaging\npymemcache\n")
        project.write(f"{host.table}\n{ONE}\n{TWO}")
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    return site.host


def told(host: Host, app: str) -> dict[str, str]:
    """The environment of an app's web process."""
    (pid,) = [pid for name, pid in host.programs().items() if name.startswith(f"{app}-")]
    pairs = (each.partition("=") for each in host.run("cat", f"/proc/{pid}/environ").stdout.split("\0") if each)
    return {name: value for name, _, value in pairs}


def use(host: Host, app: str, *asked: tuple[str, ...]) -> list[Any]:
    """What became of each use of a library, as the app."""
    words = ("/usr/local/lib/deploykit/in-app", app, "python", "-c", _USE)
    done = host.machine.run(*words, stdin=json.dumps(asked).encode(), seconds=120)
    found: list[Any] = json.loads(done.stdout)
    return found


def redis(host: Host, app: str, name: str, *words: str, user: str = "") -> str:
    """What redis-cli says, its complaints included."""
    place = f"/run/redis-{app}{name and '.' + name}/redis.sock"
    done = host.run("redis-cli", "-s", place, *words, check=False, user=user or app)
    return f"{done.stdout}{done.stderr}".strip()


def fill(host: Host, name: str) -> str:
    """What an instance of `one` answers to 12 MiB, in pieces."""
    script = "x=$(printf 'x%.0s' $(seq 1000)); for i in $(seq 12000); do echo RPUSH l$((i % 100)) $i$x; done"
    place = f"/run/redis-one{name and '.' + name}/redis.sock"
    return host.said("sh", "-c", f"({script}) | redis-cli -s {place} 2>&1 | sort | uniq -c | grep -v ' [0-9]*$' || :")


def test_the_environment_names_them(host: Host) -> None:
    one, two = told(host, "one"), told(host, "two")
    assert one["REDIS_URL"] == "unix:///run/redis-one/redis.sock?db=0"
    assert one["CACHE_URL"] == "pymemcache:///run/memcached-one.cache/memcached.sock"
    assert one["CELERY_BROKER_URL"] == "redis+socket:///run/redis-one.broker/redis.sock?virtual_host=0"
    assert (one["QUEUE_URL"], one["VHOST"]) == ("unix:///run/redis-one.broker/redis.sock?db=3", "one")
    assert two["CACHE_URL"] == "unix:///run/redis-two.cache/redis.sock?db=0"
    assert two["CELERY_BROKER_URL"] == two["BROKER_URL"] != one["EVENTS_URL"]


def test_libraries_find_them_by_what_the_environment_says(host: Host) -> None:
    one, two = told(host, "one"), told(host, "two")
    memcached = "memcached.PyMemcacheCache"
    assert use(
        host,
        "one",
        ("cached", memcached, "unix:/run/memcached-one.cache/memcached.sock"),
        ("cached", "redis.RedisCache", one["REDIS_URL"]),
        ("cached", "redis.RedisCache", one["SESSIONS_URL"]),
        ("queued", one["CELERY_BROKER_URL"]),
        ("queued", one["EVENTS_URL"]),
        ("database", one["QUEUE_URL"]),
    ) == [*["tiny.settings"] * 3, *["thumbnail"] * 2, [3, "1"]]
    assert use(
        host,
        "two",
        ("cached", memcached, "unix:/run/memcached-two.pages/memcached.sock"),
        ("cached", "redis.RedisCache", two["CACHE_URL"]),
        ("queued", two["CELERY_BROKER_URL"]),
    ) == [*["tiny.settings"] * 2, "thumbnail"]


def test_an_app_reaches_nothing_of_another(host: Host) -> None:
    one, two = told(host, "one"), told(host, "two")
    for name, app, other in (("broker", "one", "two"), ("", "one", "two"), ("cache", "two", "one")):
        assert redis(host, app, name, "PING") == "PONG"
        assert "Permission denied" in redis(host, app, name, "PING", user=other)
    without = "redis://127.0.0.1:6401/0"
    strange = two["BROKER_URL"].rpartition("/")[0]
    found = use(
        host,
        "two",
        ("cached", "memcached.PyMemcacheCache", "unix:/run/memcached-one.cache/memcached.sock"),
        ("database", one["REDIS_URL"]),
        ("database", without),
        ("queued", f"{strange}/one"),
        ("queued", f"{strange}/%2F"),
        ("queued", "amqp://guest:guest@127.0.0.1:5672//"),
    )
    words = ("PermissionError", "Permission denied", "Connection refused", "NOT_ALLOWED", "NOT_ALLOWED", "403")
    for answer, word in zip(found, words, strict=True):
        assert word in str(answer), found
    for path in ("/etc/deploykit/redis-one.sessions.conf", "/srv/one/data/redis-broker", "/run/memcached-one.cache"):
        assert "Permission denied" in host.run("ls", path, check=False, user="two").stderr or (
            "Permission denied" in host.run("cat", path, check=False, user="two").stderr
        )


def test_each_runs_as_its_app(host: Host) -> None:
    lines = [line.split(None, 1) for line in host.said("ps", "-eo", "user:32,args").splitlines()]
    owners = {args.split("/run/")[1].split("/")[0]: user for user, args in lines if "/run/redis-" in args}
    owners |= {args.split("/run/")[1].split("/")[0]: user for user, args in lines if "/run/memcached-" in args}
    assert owners == {
        **{"redis-one": "one", "redis-one.broker": "one", "memcached-one.cache": "one"},
        **{"redis-two.cache": "two", "memcached-two.pages": "two"},
    }
    assert [user for user, args in lines if "redis-server 127.0.0.1:6401" in args] == ["one"]


def test_nothing_listens_beyond_the_machine(host: Host) -> None:
    listening = host.sh("ss -ltnH | awk '{print $4}'").split()
    assert {place for place in listening if not place.startswith(("127.", "[::1]"))} == {
        *("0.0.0.0:22", "[::]:22", "0.0.0.0:80", "[::]:80")
    }
    assert {"127.0.0.1:5672", "127.0.0.1:25672", "127.0.0.1:4369", "127.0.0.1:6401"} <= set(listening)
    assert not {"127.0.0.1:6379", "127.0.0.1:11211"} & set(listening), "Debian's own instances are off"
    with pytest.raises(OSError):
        socket.create_connection((host.address, 5672), 2)


def inside(host: Host) -> dict[str, set[tuple[str, ...]]]:
    """What RabbitMQ has: (user, tags), (vhost), and who may do everything where."""
    found = json.loads(host.said("rabbitmqctl", "-q", "export_definitions", "-"))
    return {
        "users": {(each["name"], *each["tags"]) for each in found["users"]},
        "vhosts": {(each["name"],) for each in found["vhosts"]},
        "permissions": {
            (each["user"], each["vhost"], each["configure"] + each["write"] + each["read"])
            for each in found["permissions"]
        },
    }


def test_rabbitmq_has_a_user_and_a_vhost_for_each_app_and_no_guest(host: Host) -> None:
    assert inside(host) == {
        "users": {("one",), ("two",)},
        "vhosts": {("one",), ("two",)},
        "permissions": {("one", "one", ".*.*.*"), ("two", "two", ".*.*.*")},
    }


def test_passwords_are_where_they_must_be_and_nowhere_else(host: Host) -> None:
    kept = json.loads(host.said("cat", "/var/lib/deploykit/secrets/one.json"))
    slot = host.said("readlink", "/run/deploykit/one/live.sock").removesuffix(".sock")
    places = ("/etc", "/srv", "/run", "/var/lib/deploykit", "/var/lib/rabbitmq", "/var/log", "/opt")
    for name in SECRETS:
        found = host.run("grep", "-rlFs", "--", kept[name], *places, check=False)
        files = {f"/etc/deploykit/one.{slot}.env", "/var/lib/deploykit/secrets/one.json"}
        if name.startswith("REDIS"):
            files.add("/etc/deploykit/redis-one.sessions.conf")
        assert set(found.stdout.split()) == files
        assert kept[name] not in host.said("ps", "-eo", "args")
    assert host.said("stat", "--format=%a %U %G", "/etc/deploykit/redis-one.sessions.conf") == "640 root one"


def test_extensions_and_settings_are_the_apps(site: Project, host: Host) -> None:
    def psql(statement: str) -> str:
        return host.said("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "one", "-c", statement, user="one")

    assert psql("SELECT similarity('word', 'words') > 0.5") == "t"
    assert len(psql("SELECT uuid_generate_v4()")) == 36
    assert psql("SHOW statement_timeout") == "31s" and psql("SHOW search_path") == "public, extra"
    assert psql("CREATE TABLE t (name text); CREATE INDEX ON t USING gin (name gin_trgm_ops); DROP TABLE t") == ""
    assert psql("SELECT count(*) FROM pg_extension WHERE extname = 'citext'") == "0"
    psql("ALTER DATABASE one SET lock_timeout = '7s'")  # the app's own: left alone
    site.settled()
    site.edit("deploykit.toml", 'statement_timeout = "31s"\nsearch_path = "public, extra"', 'work_mem = "9MB"')
    changes = named(site.changes())
    assert changes == {f"postgres setting one {name}" for name in ("statement_timeout", "search_path", "work_mem")}
    site.deploy()
    assert psql("SHOW statement_timeout") == "0" and psql("SHOW work_mem") == "9MB"
    assert psql("SHOW lock_timeout") == "7s" and psql("SHOW search_path") == '"$user", public'
    site.edit("deploykit.toml", 'work_mem = "9MB"', 'work_mem = "much"')
    ran = site.fab("deploy")
    assert ran.status == 1 and 'invalid value for parameter "work_mem": "much"' in ran.text, ran.text
    assert "Correct `settings` of the database of one" in ran.text
    site.edit("deploykit.toml", 'work_mem = "much"', 'work_mem = "9MB"')
    site.edit("deploykit.toml", '"uuid-ossp"', '"uuid-ossp", "wondrous"')
    ran = site.fab("deploy")
    assert ran.status == 1 and "the extension wondrous" in ran.text and 'apt = ["postgresql-' in ran.text, ran.text
    site.edit("deploykit.toml", ', "wondrous"', "")
    site.settled()


def test_an_app_cannot_have_the_superuser_call_its_functions(site: Project, host: Host) -> None:
    """deploykit looks into each app's database as the superuser: what it calls must not be the app's own."""
    take = (
        "CREATE FUNCTION evil.take() RETURNS text LANGUAGE plpgsql AS 'BEGIN ALTER ROLE two SUPERUSER; RETURN 1; END'"
    )
    words = ("CREATE SCHEMA evil", take, *(
        f"CREATE VIEW evil.{name} AS SELECT evil.take() AS {column}"
        for name, column in (("pg_extension", "extname"), ("pg_tables", "schemaname"), ("pg_database", "datname"))
    ), "ALTER DATABASE two SET search_path = evil, public, pg_catalog")  # fmt: skip
    host.said("psql", "-Xq", "-d", "two", *(word for each in words for word in ("-c", each)), user="two")
    migration = tiny.FAILING.replace('raise RuntimeError("the moon is in the wrong quarter")', "pass")
    (site.folder / "tiny/notes/migrations/0002_fine.py").write_text(migration)
    site.fab("deploy")  # migrates, so that it looks whether the database is empty
    assert host.psql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'two'") == "f"
    assert host.psql("one", "SELECT count(*) FROM django_migrations WHERE name = '0002_fine'") == "1"
    undo = ("ALTER DATABASE two RESET search_path", "DROP SCHEMA evil CASCADE")
    host.said("psql", "-Xq", "-d", "two", *(word for each in undo for word in ("-c", each)), user="two")
    site.deploy()


def test_a_cache_forgets_and_a_broker_refuses(host: Host) -> None:
    assert fill(host, "") == ""
    assert "evicted_keys:0" not in redis(host, "one", "", "INFO", "stats")
    redis(host, "one", "broker", "RPUSH", "first", "kept")
    assert "OOM command not allowed" in fill(host, "broker")
    assert "evicted_keys:0" in redis(host, "one", "broker", "INFO", "stats")
    assert redis(host, "one", "broker", "LRANGE", "first", "0", "-1") == "kept"


@pytest.mark.parametrize("how", ["kill", "reboot"])
def test_a_broker_keeps_what_it_holds(host: Host, how: str) -> None:
    redis(host, "one", "broker", "FLUSHALL")
    redis(host, "one", "broker", "RPUSH", "celery", f"task before {how}")
    unit = "redis-server@one.broker.service"
    if how == "kill":
        host.sh(f"sleep 1.5; kill -9 $(systemctl show --value --property=MainPID {unit})")  # it syncs each second
    else:
        host.reboot()
    host.sh("for i in $(seq 100); do runuser -u one -- redis-cli -s /run/redis-one.broker/redis.sock PING && exit 0; "
            "sleep 0.1; done; exit 1")  # fmt: skip
    assert redis(host, "one", "broker", "LRANGE", "celery", "0", "-1") == f"task before {how}"


def test_a_second_deploy_changes_nothing(site: Project, host: Host) -> None:
    """After the reboot, too: RabbitMQ answers when systemd says that it runs."""
    host.sh("for i in $(seq 300); do systemctl is-active -q rabbitmq-server && exit 0; sleep 0.1; done; exit 1")
    before = host.pids()
    ran = site.deploy()
    assert ran.last == "nothing to do" and host.pids() == before
    site.settled()


def test_what_is_altered_on_the_host_is_put_right(site: Project, host: Host) -> None:
    host.said("rabbitmqctl", "-q", "change_password", "two", "other")
    host.said("rabbitmqctl", "-q", "delete_vhost", "one")
    host.said("systemctl", "stop", "memcached-one.cache.service")
    assert named(site.changes()) == {
        *("rabbitmq vhost one", "rabbitmq vhost two", "service memcached-one.cache.service")
    }
    site.deploy()
    assert use(host, "two", ("queued", told(host, "two")["BROKER_URL"])) == ["thumbnail"]
    assert use(host, "one", ("queued", told(host, "one")["EVENTS_URL"])) == ["thumbnail"]


def test_what_leaves_the_file_ends_and_its_data_stays(site: Project, host: Host) -> None:
    redis(host, "one", "broker", "RPUSH", "celery", "the last")
    text = site.toml.read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("broker = { kind", "env ="))]
    site.write("\n".join(kept))
    site.deploy()
    assert "broker" not in host.sh("systemctl list-units --plain --no-legend --all 'redis-server@*'")
    assert host.run("ls", "/run/redis-one.broker", check=False).returncode == 2
    assert "BROKER_URL" not in told(host, "one")
    site.write(text)
    site.deploy()
    assert "the last" in redis(host, "one", "broker", "LRANGE", "celery", "0", "-1")


def test_an_app_that_leaves_takes_its_own_with_it(site: Project, host: Host) -> None:
    assert site.fab("remove-app", "one").status == 0
    assert inside(host)["vhosts"] == {("one",), ("two",)}
    assert host.sh("ls /srv/one/data") == "redis-broker"
    site.write(f"{host.table}\n{ONE}\n{TWO}")
    ran = site.fab("remove-app", "one", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    left = {"users": {("two",)}, "vhosts": {("two",)}, "permissions": {("two", "two", ".*.*.*")}}
    assert inside(host) == left
    assert host.run("ls", "/srv/one", check=False).returncode == 2
    assert "one" not in host.sh("systemctl list-units --plain --no-legend --all 'redis-server@*' 'memcached-*'")
    assert use(host, "two", ("queued", told(host, "two")["BROKER_URL"])) == ["thumbnail"]
    site.write(f"{host.table}\n{TWO}")
    site.deploy()  # of what both had, such as the rules of ports
    site.settled()
