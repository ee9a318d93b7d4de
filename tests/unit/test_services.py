"""Caches, brokers and what a database has: how they are said, what recipes make of them, what apps are told."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.agent.resource import Failed, HostSecret, Joined, Resource, decode, encode
from deploykit.agent.resources import DataDirectory, File, Package, Service
from deploykit.agent.values import App, Code, Database, Facts, Host, Redis, Value
from deploykit.agent.values import Service as Store
from deploykit.config import loads
from deploykit.config.project import Project
from deploykit.config.references import SERVICES, known
from deploykit.errors import ConfigError, Problem
from deploykit.recipes import ORDER, ports, rabbitmq
from deploykit.recipes.app import environment, references
from deploykit.recipes.postgres import Extension, Setting
from deploykit.recipes.sizing import sizes
from deploykit.rendering import renderer

BOOKWORM = Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11")
STORES = (
    Store("cache", "memcached"),
    Store("broker", "redis", persistent=True),
    Store("sessions", "redis", port=6402),
    Store("pages", "memcached", port=11311),
    Store("events", "rabbitmq"),
)
BLOG = App(
    "my-blog",
    ("blog.example",),
    Code("d"),
    "config.settings",
    database=Database(
        "postgres", "my_blog", None, ("pg_trgm", "postgis", "pg_stat_statements"), (("work_mem", "8MB"),)
    ),
    redis=Redis(),
    services=STORES,
)
SHOP = replace(BLOG, name="my", domains=("shop.example",), database=Database("none"))


def made(*apps: App) -> dict[str, Resource]:
    """All resources of a host by key, in order, but those of the recipe `app`."""
    found: dict[str, Resource] = {}
    for name in ORDER[:-1]:
        recipe = importlib.import_module(f"deploykit.recipes.{name}").recipe
        for each in recipe(Host("web1", apps=apps), BOOKWORM, renderer(Path("/nowhere"))):
            assert found.setdefault(each.key, each) == each, "a conflict"
    return found


def text(found: dict[str, Resource], path: str) -> str:
    file = found[f"file {path}"]
    assert isinstance(file, File) and isinstance(file.content, str)
    return file.content


def read(toml: str) -> Project:
    return loads(toml, Path("/project/deploykit.toml"))


def only(toml: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        read(toml)
    (found,) = caught.value.problems
    return found


def table(toml: str = "") -> str:
    return f'[apps.blog]\nsource = "../blog"\ndomains = ["blog.example"]\n{toml}'


def two(first: str, second: str) -> str:
    return f'[hosts.web1]\n[apps.one]\nsource = "x"\n{first}[apps.two]\nsource = "x"\n{second}'


def spelled(value: Value) -> str:
    """A value with the names of the host's secrets in the places of their values."""
    parts = value.parts if isinstance(value, Joined) else (value,)
    return "".join(f"<{part.name}>" if isinstance(part, HostSecret) else str(part) for part in parts)


def names(app: App = BLOG) -> dict[str, str]:
    return {name: spelled(value) for name, value in references(app, "r1").items()}


def variables(app: App = BLOG, env: Mapping[str, Value] | None = None) -> dict[str, str]:
    found = environment(replace(app, env=env or {}), "r1", "a", "/srv/my-blog/venvs/v")
    return {name: spelled(value) for name, value in found.items()}


def test_every_part_that_may_be_used_is_given_and_no_other() -> None:
    allowed = known("postgres", BLOG.redis, None, None, BLOG.services)
    about = {name for name in allowed if name.split(".")[0] in {store.name for store in BLOG.stores}}
    given = {name for name in names() if name.split(".")[0] in {store.name for store in BLOG.stores}}
    assert given == {name for name in about if not allowed[name]}
    assert len(about) == sum(len(SERVICES[store.kind]) for store in BLOG.stores)


def test_a_redis_has_a_url_for_each_library() -> None:
    found = names()
    assert found["redis.url"] == "unix:///run/redis-my-blog/redis.sock?db=0"
    assert found["broker.url"] == "unix:///run/redis-my-blog.broker/redis.sock?db=0"
    assert found["broker.celery"] == "redis+socket:///run/redis-my-blog.broker/redis.sock?virtual_host=0"
    assert found["broker.socket"] == "/run/redis-my-blog.broker/redis.sock"


def test_a_redis_with_a_port_has_a_password() -> None:
    found = names()
    url = "redis://:<REDIS_SESSIONS_PASSWORD>@127.0.0.1:6402/0"
    assert (found["sessions.url"], found["sessions.celery"]) == (url, url)
    assert (found["sessions.host"], found["sessions.port"]) == ("127.0.0.1", "6402")
    assert found["sessions.password"] == "<REDIS_SESSIONS_PASSWORD>"
    assert found["sessions.socket"] == "/run/redis-my-blog.sessions/redis.sock"


def test_memcached_has_a_location_for_django() -> None:
    found = names()
    assert found["cache.location"] == "unix:/run/memcached-my-blog.cache/memcached.sock"
    assert found["cache.url"] == "pymemcache:///run/memcached-my-blog.cache/memcached.sock"
    assert (found["pages.location"], found["pages.url"]) == ("127.0.0.1:11311", "pymemcache://127.0.0.1:11311")


def test_rabbitmq_has_a_vhost_for_each_app() -> None:
    found = names()
    assert found["events.url"] == "amqp://my-blog:<RABBITMQ_PASSWORD>@127.0.0.1:5672/my-blog"
    assert (found["events.user"], found["events.vhost"]) == ("my-blog", "my-blog")


def test_the_variables_are_called_by_the_names() -> None:
    found = variables()
    assert found["REDIS_URL"] == names()["redis.url"] and found["CACHE_URL"] == names()["cache.url"]
    assert found["SESSIONS_URL"] == names()["sessions.url"] and found["EVENTS_URL"] == names()["events.url"]
    assert found["BROKER_URL"] == found["CELERY_BROKER_URL"] == names()["broker.celery"]
    other = replace(BLOG, redis=None, services=(Store("broker", "memcached"),))
    assert not {"CELERY_BROKER_URL", "REDIS_URL"} & variables(other).keys()


def test_what_the_user_sets_wins() -> None:
    found = variables(env={"BROKER_URL": "amqp://elsewhere", "Q": "redis://${cache.location}"})
    assert found["BROKER_URL"] == "amqp://elsewhere" and found["CELERY_BROKER_URL"] == names()["broker.celery"]
    assert found["Q"] == "redis://unix:/run/memcached-my-blog.cache/memcached.sock"


def test_a_broker_is_kept_and_a_cache_forgets() -> None:
    found = made(BLOG)
    broker, cache = (
        text(found, "/etc/deploykit/redis-my-blog.broker.conf"),
        text(found, "/etc/deploykit/redis-my-blog.conf"),
    )
    assert "maxmemory-policy noeviction\n" in broker and "appendonly yes\n" in broker
    assert "dir /srv/my-blog/data/redis-broker\n" in broker
    assert isinstance(found["directory /srv/my-blog/data/redis-broker"], DataDirectory)
    drop_in = text(found, "/etc/systemd/system/redis-server@my-blog.broker.service.d/deploykit.conf")
    assert "ReadWritePaths=/srv/my-blog/data/redis-broker\n" in drop_in
    assert "maxmemory-policy allkeys-lru\n" in cache and "appendonly no\n" in cache
    assert "ReadWritePaths" not in text(found, "/etc/systemd/system/redis-server@my-blog.service.d/deploykit.conf")


def test_a_password_is_in_no_text() -> None:
    file = made(BLOG)["file /etc/deploykit/redis-my-blog.sessions.conf"]
    assert isinstance(file, File) and isinstance(file.content, Joined)
    assert file.content.parts[1] == HostSecret("REDIS_SESSIONS_PASSWORD", make=40)
    assert (file.group, file.mode, file.app) == ("my-blog", 0o640, "my-blog")
    before = file.content.parts[0]
    assert isinstance(before, str) and before.endswith('requirepass "') and "port 6402\n" in before


def test_no_two_instances_are_called_the_same() -> None:
    """The app `my` with a service `blog`, and the app `my-blog`."""
    shop = replace(SHOP, services=(Store("blog", "redis"), Store("blogs", "memcached")))
    blog = replace(BLOG, services=(Store("broker", "redis"), Store("s", "memcached")))
    found = made(shop, blog)
    units = [each.unit for each in found.values() if isinstance(each, Service) and each.app]
    assert len(units) == len(set(units)) == 6
    assert "redis-server@my.blog.service" in units and "redis-server@my-blog.service" in units


def test_memcached_runs_as_the_app() -> None:
    found = made(BLOG)
    unit = text(found, "/etc/systemd/system/memcached-my-blog.cache.service")
    assert "User=my-blog\n" in unit and "RuntimeDirectoryMode=0700\n" in unit
    assert " -s /run/memcached-my-blog.cache/memcached.sock " in unit and " -m 32 " in unit
    port = text(found, "/etc/systemd/system/memcached-my-blog.pages.service")
    assert " -l 127.0.0.1 -p 11311 " in port and "RestrictAddressFamilies=AF_INET\n" in port
    assert found["service memcached.service"].wanted() == {"running": False, "enabled": False}


def test_each_port_is_for_its_own_users() -> None:
    other = replace(SHOP, services=())
    found = {guard.port: guard for guard in ports.guards(Host("web1", apps=(BLOG, other)))}
    assert found[11311].servers == found[11311].clients == ("root", "my-blog")
    assert {"root", "rabbitmq", "my-blog"} <= set(found[5672].clients) and "my" not in found[5672].clients
    assert "my-blog" not in found[5672].servers and "my-blog" not in found[25672].clients
    assert ports.guards(Host("web1", apps=(BLOG,))) == ()


def test_rabbitmq_is_told_to_keep_to_the_machine_before_its_package_comes() -> None:
    found = made(BLOG, SHOP)
    order = list(found)
    package = order.index("package rabbitmq-server")
    early = [
        *("/etc/rabbitmq/rabbitmq.conf", "/etc/rabbitmq/rabbitmq-env.conf", "/etc/rabbitmq/definitions.json"),
        *(f"/etc/systemd/system/{each}.d/deploykit.conf" for each in ("epmd.socket", "epmd@0.0.0.0.socket")),
    ]
    first = min(order.index(key) for key, each in found.items() if isinstance(each, Package))
    assert all(order.index(f"file {path}") < first <= package for path in early)
    assert all(not found[f"file {path}"].removable for path in early), "without them it would open itself"
    assert "listeners.tcp.local = 127.0.0.1:5672\n" in text(found, "/etc/rabbitmq/rabbitmq.conf")
    assert {key for key in found if key.startswith("rabbitmq vhost")} == {"rabbitmq vhost my", "rabbitmq vhost my-blog"}
    assert not any("rabbitmq" in key for key in made(replace(BLOG, services=STORES[:4])))


def test_extensions_and_settings_of_a_database() -> None:
    found = made(BLOG)
    assert {each.name for each in found.values() if isinstance(each, Extension)} == set(BLOG.database.extensions)
    (setting,) = [each for each in found.values() if isinstance(each, Setting)]
    assert (setting.database, setting.name, setting.value) == ("my_blog", "work_mem", "8MB")
    assert "package postgresql-15-postgis-3" in found
    config = text(found, "/etc/postgresql/15/main/conf.d/deploykit.conf")
    assert "shared_preload_libraries = 'pg_stat_statements'\n" in config
    assert found["postgres settings"].wanted()["shared_preload_libraries"] == "pg_stat_statements"
    plain = made(replace(BLOG, database=Database("postgres", "my_blog")))
    assert "preload" not in text(plain, "/etc/postgresql/15/main/conf.d/deploykit.conf")


def test_names_in_a_list_are_compared_as_names() -> None:
    setting = Setting("blog", "search_path", '"$user", public,extra', "15", app="blog")
    assert setting.wanted() == {"value": "$user, public, extra"}


def test_brokers_and_caches_count() -> None:
    without = sizes(BOOKWORM, [replace(BLOG, redis=None, services=())])
    found = sizes(BOOKWORM, [BLOG])
    assert found.stores == {
        ("my-blog", "redis"): 32,
        ("my-blog", "cache"): 32,
        ("my-blog", "broker"): 64,
        ("my-blog", "sessions"): 32,
        ("my-blog", "pages"): 32,
    }
    assert found.needed == without.needed + 192 + 3 * 8 + 2 * 5 + 120
    assert sizes(BOOKWORM, [replace(BLOG, services=(Store("cache", "redis", 100),))]).stores["my-blog", "cache"] == 100


def test_all_of_it_travels() -> None:
    every = tuple(made(BLOG, SHOP).values())
    assert decode(encode(every)) == every


REDIS = "[apps.one.services]\ns = {{ kind = 'redis', port = {0} }}\n"


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        (6401, "[apps.two.services]\ns = { kind = 'redis', port = 6401 }\n", "services.s.port"),
        (6401, "redis = { port = 6401 }\n", "redis.port"),
        (8000, "nginx = false\nport = 8000\n", "port"),
    ],
)
def test_a_port_belongs_to_one_app(first: int, second: str, key: str) -> None:
    found = only(two(f'domains = ["a.example"]\n{REDIS.format(first)}', f'domains = ["b.example"]\n{second}'))
    assert found.what == f"{first} belongs to [apps.one] already, on the same host"
    assert f"{found.table}.{found.key}" == f"apps.two.{key}"


@pytest.mark.parametrize("port", [5432, 5672, 6379, 11211, 25672, 4369])
def test_a_port_that_another_program_has_is_refused(port: int) -> None:
    for toml in (f"redis = {{ port = {port} }}\n", f"nginx = false\nport = {port}\n"):
        found = only(table(toml))
        assert f"{port} is the port of" in found.what and found.allowed == "another port, such as 6401"


def test_a_port_is_set_once_in_an_app() -> None:
    found = only(table("redis = { port = 6401 }\n[apps.blog.services]\ns = { kind = 'memcached', port = 6401 }\n"))
    assert "6401 is set twice" in found.what and found.key == "services.s.port"


def test_a_reference_needs_its_part() -> None:
    stores = "[apps.blog.services]\ns = { kind = 'redis' }\nm = { kind = 'memcached', port = 11311 }\n"
    for reference, words in (
        ("s.password", "it listens on a socket only; give it a port"),
        ("m.socket", "this one has a port"),
        ("s.location", "there is no reference"),
    ):
        assert words in only(table(f'env = {{ A = "${{{reference}}}" }}\n{stores}')).what
    assert read(table(f'env = {{ A = "${{s.url}} ${{m.host}}" }}\n{stores}')).apps


def test_the_short_forms() -> None:
    (blog,) = read(table('cache = "memcached"\nbroker = "redis"\n')).apps
    assert blog.services == (Store("cache", "memcached"), Store("broker", "redis", persistent=True))


def test_another_rabbitmq_with_data_is_told_of_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_MNESIA", str(tmp_path))
    (node,) = [each for each in made(BLOG).values() if isinstance(each, rabbitmq.Alone)]
    for name in ("rabbit@localhost-plugins-expand", "rabbit@localhost"):
        assert node.observe() == node.wanted()
        (tmp_path / name).mkdir()
    (tmp_path / "rabbit@web1").mkdir()
    assert node.observe() == node.wanted(), "ours is there, too"
    (tmp_path / "rabbit@localhost").rmdir()
    with pytest.raises(Failed) as caught:
        node.observe()
    assert "rabbit@web1" in caught.value.what and "apt-get purge" in caught.value.todo
