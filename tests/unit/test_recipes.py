"""What the recipes yield, without a host: pure functions from configuration to resources."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest

from deploykit.agent.resource import HostSecret, Resource, decode, encode
from deploykit.agent.resources import Absent, DataDirectory, Directory, File, Link, Package, Service, User
from deploykit.agent.values import App, Code, Database, Facts, Host, Python, Redis, Tls, Web
from deploykit.recipes import ORDER
from deploykit.recipes.app import environment
from deploykit.recipes.base import supported
from deploykit.recipes.passwords import NoPasswords
from deploykit.recipes.postgres import written
from deploykit.recipes.python import Interpreter
from deploykit.recipes.systems import SYSTEMS

TEMPLATES = Path(__file__).parents[2] / "templates"
BOOKWORM = Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11")
MEMORIES = App(
    "memories",
    ("memories.example", "*.memories.example"),
    Code("d"),
    "config.settings",
    redirects=("www.memories.example",),
    database=Database(name="memories"),
    redis=Redis(),
)
READER = App("reader", ("reader.example",), Code("d"), "config.settings", database=Database("sqlite"))
BARE = replace(READER, name="bare", domains=("bare.example",), nginx=False, port=8000)


def render(name: str | tuple[str, ...], **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.select_template([name] if isinstance(name, str) else name).render(**values)


def made(*apps: App, facts: Facts = BOOKWORM) -> dict[str, Resource]:
    """All resources of a host by key, but those of the recipe `app`."""
    found: dict[str, Resource] = {}
    for name in ORDER:
        if name == "app":
            continue
        for resource in importlib.import_module(f"deploykit.recipes.{name}").recipe(
            Host("web1", apps=apps), facts, render
        ):
            assert found.setdefault(resource.key, resource) == resource, "a conflict"
    return found


def text(found: dict[str, Resource], path: str) -> str:
    file = found[f"file {path}"]
    assert isinstance(file, File) and isinstance(file.content, str)
    return file.content


def site(app: App, facts: Facts = BOOKWORM) -> str:
    return text(made(app, facts=facts), f"/etc/nginx/sites-available/{app.name}.conf")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_supported_system(system: tuple[str, str]) -> None:
    facts = replace(BOOKWORM, system=system[0], version=system[1])
    assert supported(facts) is None
    found = made(MEMORIES, replace(READER, tls=Tls("/c", "/k")), facts=facts)
    assert f"package postgresql-{SYSTEMS[system].postgres}" in found
    resources = tuple(found.values())
    assert decode(json.loads(json.dumps(encode(resources)))) == resources


@pytest.mark.parametrize(
    ("system", "version", "words"),
    [("debian", "11", "Debian 11"), ("ubuntu", "25.10", "Ubuntu 25.10"), ("alpine", "3.20", "Alpine 3.20")],
)
def test_other_systems_are_refused_in_words(system: str, version: str, words: str) -> None:
    reason = supported(replace(BOOKWORM, system=system, version=version))
    assert reason is not None and words in reason and "Debian 13" in reason


def test_nothing_that_nobody_wants() -> None:
    packages = {r.name for r in made().values() if isinstance(r, Package)}
    assert packages == {"ca-certificates", "tzdata"}
    packages = {r.name for r in made(BARE).values() if isinstance(r, Package)}
    assert packages == {"ca-certificates", "tzdata", "python3", "python3-pip-whl", "supervisor"}


def test_what_must_be_there_comes_first() -> None:
    """Every file's folder is yielded before it or belongs to a package; every owner is yielded before what he owns."""
    apps = (MEMORIES, replace(READER, tls=Tls("/c", "/k")))
    from_packages = {
        "/etc/tmpfiles.d", "/var/log", "/etc/nginx/conf.d", "/etc/nginx/snippets", "/etc/nginx/sites-available",
        "/etc/nginx/sites-enabled", "/etc/postgresql/15/main/conf.d", "/etc", "/srv", "/run", "/opt", "/var/lib",
        "/var/backups", "/var/cache", "/etc/systemd/system", "/etc/ssh",
    }  # fmt: skip
    there, users = set(from_packages), {"root", "www-data"}
    for resource in made(*apps).values():
        if isinstance(resource, User):
            users.add(resource.name)
        if isinstance(resource, File | Directory | Link):
            assert str(Path(resource.path).parent) in there, resource.key
        if isinstance(resource, File | Directory):
            assert {resource.owner, resource.group} <= users, resource.key
        if isinstance(resource, Directory):
            there.add(resource.path)


def test_an_app_shares_nothing_with_another() -> None:
    found = made(MEMORIES, READER)
    for app in (MEMORIES, READER):
        for name, mode, group in (
            ("home", 0o700, app.name),
            ("data", 0o750, app.name),
            ("media", 0o2750, "www-data"),
        ):
            directory = found[f"directory /srv/{app.name}/{name}"]
            assert directory == DataDirectory(f"/srv/{app.name}/{name}", app.name, group, mode, app=app.name)
        sockets = found[f"directory /run/{app.name}"]
        assert isinstance(sockets, Directory) and sockets.mode == 0o2750
        assert f"d /run/{app.name} 2750 {app.name} www-data -" in text(
            found, f"/etc/tmpfiles.d/deploykit-{app.name}.conf"
        )


def test_the_resources_of_an_app_carry_its_name() -> None:
    alone, both = made(READER), made(READER, MEMORIES)
    for key in both.keys() - alone.keys():
        resource = both[key]
        shared = isinstance(resource, Package | NoPasswords) or "redis-server.service" in key or "postgres" in key
        assert resource.app == "memories" or (shared and resource.app == ""), key


def test_another_app_changes_nothing_of_the_first() -> None:
    for memory in (4000, 16000):
        facts = replace(BOOKWORM, memory=memory)
        two = made(MEMORIES, READER, facts=facts)
        for key, resource in made(MEMORIES, facts=facts).items():
            if key != "names of sites":  # which are looked for, and never changed
                assert two[key] == resource


def test_redis_is_the_apps_alone() -> None:
    found = made(MEMORIES)
    assert found["service redis-server.service"].wanted() == {"running": False, "enabled": False}
    assert isinstance(found["service redis-server@memories.service"], Service)
    config = text(found, "/etc/deploykit/redis-memories.conf")
    assert "port 0\n" in config and "unixsocketperm 700\n" in config and "maxmemory 32mb\n" in config
    assert "User=memories\n" in text(found, "/etc/systemd/system/redis-server@memories.service.d/deploykit.conf")


def test_names_with_a_dash() -> None:
    app = replace(MEMORIES, name="my-links", database=Database(name="my_links"))
    found = made(app)
    assert found["postgres database my_links"].wanted()["owner"] == "my-links"
    assert "postgres role my-links" in found


def test_what_the_host_invents_may_have_another_name() -> None:
    given = replace(READER, env={"DJANGO_SECRET_KEY": HostSecret("SECRET_KEY"), "STRIPE": HostSecret("STRIPE")})
    found = environment(given, "r", "a", "/v")
    assert found["DJANGO_SECRET_KEY"] == found["SECRET_KEY"] == HostSecret("SECRET_KEY", make=50)
    assert found["STRIPE"] == HostSecret("STRIPE")
    both = {name: HostSecret("SECRET_KEY") for name in ("SECRET_KEY", "DJANGO_SECRET_KEY")}
    asked = environment(replace(READER, env=both), "r", "a", "/v")  # then a person gives it
    assert asked["DJANGO_SECRET_KEY"] == asked["SECRET_KEY"] == HostSecret("SECRET_KEY")


def test_only_local_databases_are_made() -> None:
    for kind in ("sqlite", "url", "none"):
        assert not any("postgres" in key for key in made(replace(MEMORIES, database=Database(kind))))


@pytest.mark.parametrize(("mebibytes", "words"), [(128, "128MB"), (1024, "1GB"), (1536, "1536MB"), (4096, "4GB")])
def test_memory_as_postgres_writes_it(mebibytes: int, words: str) -> None:
    assert written(mebibytes) == words


def test_other_interpreters() -> None:
    apps = [replace(READER, python=Python(version=version)) for version in ("", "3.11", "3.13", "3.13")]
    found = [r for app in apps for r in made(app).values() if isinstance(r, Interpreter)]
    assert [interpreter.version for interpreter in found] == ["3.13", "3.13"]


def test_the_site() -> None:
    words = site(MEMORIES)
    assert "server_name memories.example *.memories.example;" in words
    assert "proxy_pass http://unix:/run/deploykit/memories/live.sock;" in words
    assert "return 301 $deploykit_proto://memories.example$request_uri;" in words
    assert 'location ~ "(?s)^/static/(?<file>.+)$"' in words and 'try_files "/media/$file" =404;' in words
    assert "443" not in words and "upgrade" not in words.lower()
    assert words.count("{") == words.count("}")
    found = made(MEMORIES)
    assert found["absent /etc/nginx/sites-enabled/default"] == Absent(
        "/etc/nginx/sites-enabled/default", actions=found["absent /etc/nginx/sites-enabled/default"].actions
    )
    assert "return 444;" in text(found, "/etc/nginx/sites-available/deploykit-strangers.conf")


def test_the_site_by_the_apps_wishes() -> None:
    asgi = site(replace(MEMORIES, web=Web(interface="asgi", timeout=120, max_body=300)))
    assert "Upgrade $http_upgrade" in asgi and "proxy_read_timeout 125s" in asgi and "client_max_body_size 300m" in asgi
    plain = site(replace(READER, static=None, media=None))
    assert "static" not in plain and "media" not in plain
    odd = site(replace(READER, static=type(READER.static)("/assets.v1/")))  # type: ignore[misc]
    assert r"^/assets\\.v1/(?<file>.+)$" in odd
    only_wildcard = site(replace(MEMORIES, domains=("*.memories.example",)))
    assert "www.memories.example" not in only_wildcard, "there is nowhere to redirect to"


@pytest.mark.parametrize(
    ("system", "version", "old", "reject"),
    [("ubuntu", "22.04", True, False), ("debian", "12", True, True), ("debian", "13", False, True)],
)
def test_tls_by_nginx_version(system: str, version: str, old: bool, reject: bool) -> None:
    facts = replace(BOOKWORM, system=system, version=version)
    app = replace(MEMORIES, tls=Tls("/etc/ssl/m.pem", "/etc/ssl/m.key"))
    words = site(app, facts)
    assert ("listen 443 ssl http2;" in words) == old
    assert ("http2 on;" in words) != old
    assert "return 301 https://$host$request_uri;" in words
    assert "return 301 https://memories.example$request_uri;" in words
    strangers = text(made(app, facts=facts), "/etc/nginx/sites-available/deploykit-strangers.conf")
    assert ("ssl_reject_handshake on;" in strangers) == reject
    assert ("ssl_certificate /etc/ssl/m.pem;" in strangers) != reject


def test_a_host_without_ipv6() -> None:
    found = made(replace(MEMORIES, tls=Tls("/c", "/k")), facts=replace(BOOKWORM, ipv6=False))
    for resource in found.values():
        if isinstance(resource, File) and "nginx" in resource.path:
            assert "[::]" not in str(resource.content)
    assert "listen [::]:80;" in site(MEMORIES)


def test_recipes_import_nothing_but_what_travels() -> None:
    allowed = re.compile(r"^(?:from|import) (?:__future__|deploykit\.(?:agent|recipes)|[a-z0-9]+)\b")
    for module in (Path(__file__).parents[2] / "recipes").glob("*.py"):
        for line in module.read_text().splitlines():
            if re.match(r"(from|import) ", line):
                assert allowed.match(line) and "jinja2" not in line and "fabric" not in line, f"{module.name}: {line}"
