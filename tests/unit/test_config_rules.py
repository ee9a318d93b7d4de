"""Every rule of hosts and apps: hostile names, domains, paths, ports, references; and what fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit.config import loads
from deploykit.config.names import APP_NAME, RESERVED, app_name_mistake
from deploykit.config.project import Project, VagrantEntry
from deploykit.errors import ConfigError, Problem

APP = 'source = "../blog"\ndomains = ["blog.example"]\n'


def read(text: str) -> Project:
    return loads(text, Path("/project/deploykit.toml"))


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.problems
    return caught.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def app(text: str = "", name: str = "blog") -> str:
    return f"[apps.{name}]\n{APP}{text}"


HOSTILE = [
    "../x",
    "a;b",
    "Upper",
    "a" * 200,
    "a" * 32,
    "",
    " ",
    "a b",
    "-x",
    "--help",
    "9lives",
    "a_b",
    "a.b",
    "a/b",
    "/etc",
    "a\nb",
    "a\tb",
    "a\u0000b",
    "$(id)",
    "`id`",
    "a|b",
    "a&b",
    "a'b",
    'a"b',
    "a\\b",
    "caf\u00e9",
    "\u0430pp",
    "a\u202eb",
    "a*",
    "~",
    "~root",
    "a:b",
    "%h",
    "a,b",
    "{a}",
    "#a",
    "a\u200b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_app_names(name: str) -> None:
    found = [each for each in problems(f"[apps.{json.dumps(name)}]\n{APP}") if each.line == 1]
    assert found and found[0].what and found[0].allowed
    assert all(line.isprintable() for each in found for line in each.lines("f"))


def test_every_character_that_is_not_allowed_in_a_name() -> None:
    for code in range(0x250):
        letter = chr(code)
        good = letter in "abcdefghijklmnopqrstuvwxyz0123456789-"
        assert bool(app_name_mistake(f"a{letter}a")) != good, code
        assert bool(app_name_mistake(letter)) != (letter in "abcdefghijklmnopqrstuvwxyz"), code


@pytest.mark.parametrize(
    "name",
    [
        "root",
        "www-data",
        "postgres",
        "redis",
        "nginx",
        "daemon",
        "nobody",
        "sshd",
        "supervisor",
        "deploykit",
        "staff",
        "users",
        "systemd-resolve",
        "systemd-x",
        "template1",
        "sudo",
    ],
)
def test_names_of_the_system_are_refused(name: str) -> None:
    assert "belongs to the system" in only(app(name=name)).what


def test_every_user_and_group_of_this_machine_is_refused() -> None:
    for file in ("/usr/share/base-passwd/passwd.master", "/usr/share/base-passwd/group.master"):
        if Path(file).exists():
            names = {line.split(":")[0] for line in Path(file).read_text().splitlines() if line}
            assert {name for name in names if APP_NAME.fullmatch(name)} <= RESERVED


@pytest.mark.parametrize(
    ("domain", "meant"),
    [
        ("https://blog.example", '"blog.example"'),
        ("blog.example:8000", '"blog.example"'),
        ("blog.example/x", '"blog.example"'),
        ("blog example", '"blogexample"'),
        ("blog.example.", '"blog.example"'),
        (".blog.example", '"*.blog.example"'),
        ("my_blog.example", '"my-blog.example"'),
        ("blog..example", '"blog.example"'),
        ("_", ""),
        ("", ""),
        ("-a.example", ""),
        ("a-.example", ""),
        ("*", ""),
        ("*.", ""),
        ("*.example", ""),
        ("a.*.example", ""),
        ("a;b.example", ""),
        ("a{b", ""),
        ("$host", ""),
        ("a\\nb", ""),
        ("x" * 64 + ".example", ""),
        ("a." * 127 + "example", ""),
        ("stra\u00dfe.example", ""),
        ("~^x$", ""),
        ('\\"a', ""),
        ("::1", ""),
    ],
)
def test_domains_that_are_none(domain: str, meant: str) -> None:
    found = only(f'[apps.blog]\nsource = "x"\ndomains = ["ok.example", "{domain}"]\n')
    assert found.key == "domains[2]" and found.line == 3
    assert not meant or found.suggestion == meant


@pytest.mark.parametrize(
    "domain", ["localhost", "203.0.113.7", "a-b.example", "xn--bcher-kva.example", "*.b.example", "1.example"]
)
def test_domains_that_are_fine(domain: str) -> None:
    assert read(f'[apps.blog]\nsource = "x"\ndomains = ["{domain}"]\n').apps[0].domains == (domain,)


def two(first: str, second: str, hosts: str = "[hosts.web1]\n[hosts.web2]\n") -> str:
    return f'{hosts}[apps.one]\nsource = "x"\n{first}[apps.two]\nsource = "x"\n{second}'


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ('domains = ["a.example"]\n', 'domains = ["b.example", "A.EXAMPLE"]\n', "domains[2]"),
        ('domains = ["a.example"]\n', 'domains = ["b.example"]\nredirects = ["a.example"]\n', "redirects[1]"),
        ('domains = ["a.example"]\nredirects = ["www.a.example"]\n', 'domains = ["www.a.example"]\n', "domains[1]"),
        ('domains = ["a.example"]\n', 'domains = ["a.example"]\nhosts = ["web2"]\n', "domains[1]"),
        ('domains = ["b\u00fccher.example"]\n', 'domains = ["xn--bcher-kva.example"]\n', "domains[1]"),
        (
            'domains = ["a.example"]\nnginx = false\nport = 8000\n',
            'domains = ["b.example"]\nnginx = false\nport = 8000\n',
            "port",
        ),
        ('domains = ["a.example"]\n', 'domains = ["b.example"]\ndatabase = { name = "one" }\n', "database"),
    ],
)
def test_what_two_apps_cannot_share(first: str, second: str, key: str) -> None:
    found = only(two(first, second))
    assert (found.table, found.key) == ("apps.two", key) and "[apps.one]" in found.what


def test_the_same_domain_on_different_hosts() -> None:
    text = two('domains = ["a.example"]\nhosts = ["web1"]\n', 'domains = ["a.example"]\nhosts = ["web2"]\n')
    assert read(text).names == ("one", "two")
    database = "[hosts.web1]\n[hosts.db]\nroles = ['database']\n"
    assert read(two('domains = ["a.example"]\n', 'domains = ["a.example"]\nhosts = ["db"]\n', database)).apps


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('root = "../.."\n', "root"),
        ('root = "/etc"\n', "root"),
        ('root = "a/../../b"\n', "root"),
        ('root = ""\n', "root"),
        ('root = "~x"\n', "root"),
        ('root = "a\\\\b"\n', "root"),
        ('requirements = "../r.txt"\n', "requirements"),
        ('requirements = ["r.txt", "/r.txt"]\n', "requirements"),
        ('requirements = ["r.txt", "uv.lock"]\n', "requirements"),
        ('requirements = "-r x"\n', "requirements"),
        ('settings = "config/settings.py"\n', "settings"),
        ('settings = "a;b"\n', "settings"),
        ('wsgi = "config.wsgi.application"\n', "wsgi"),
        ('wsgi = "a b:c"\n', "wsgi"),
        ('wsgi = "a:b"\nasgi = "a:b"\n', "asgi"),
        ('python = "python3.12"\n', "python"),
        ('python = "2.7"\n', "python"),
        ("python = 3.12\n", "python"),
        ('database = "mysql"\n', "database"),
        ('database = "postgresql"\n', "database"),
        ('database = { name = "Bad" }\n', "database.name"),
        ('database = { name = "postgres" }\n', "database.name"),
        ('database = { name = "pg_x" }\n', "database.name"),
        ('database = { kind = "sqlite", name = "x" }\n', "database.name"),
        ('database = { kind = "sqlit" }\n', "database.kind"),
        ('static = "static/"\n', "static"),
        ('static = "/"\n', "static"),
        ('static = "/a/../b/"\n', "static"),
        ('media = "/m;x/"\n', "media"),
        ('media = "http://cdn/"\n', "media"),
        ('static = "/s/"\nmedia = "/s/"\n', "media"),
        ('health = "healthz"\n', "health"),
        ('health = "/a b"\n', "health"),
        ("keep = 1\n", "keep"),
        ("keep = 1000\n", "keep"),
        ("port = 8000\n", "port"),
        ("nginx = false\n", "port"),
        ("nginx = false\nport = 80\n", "port"),
        ("nginx = false\nport = 70000\n", "port"),
        ('nginx = false\nport = 8000\nredirects = ["r.example"]\n', "redirects"),
        ('redirects = ["blog.example"]\n', "redirects[1]"),
        ("domains = []\n", "domains"),
        ('hosts = ["web9"]\n', "hosts[1]"),
        ('exclude = [""]\n', "exclude"),
        ('tls = { certificate = "x", key = "/k" }\n', "tls.certificate"),
        ('tls = { certificate = "/x;y", key = "/k" }\n', "tls.certificate"),
        ('tls = { certificate = "/x" }\n', "tls.key"),
        ("web = { workers = -1 }\n", "workers"),
        ("web = { timeout = 0 }\n", "timeout"),
        ('web = { max_body = "20" }\n', "max_body"),
        ('web = { max_body = "lots" }\n', "max_body"),
        ("web = { max_body = 0 }\n", "max_body"),
        ("redis = { memory = -1 }\n", "redis.memory"),
        ("redis = 64\n", "redis"),
        ("nginx = 'no'\n", "nginx"),
        ("web = 4\n", "web"),
        ('env = "x"\n', "env"),
        ("static = 1979-05-27\n", "static"),
        ('source = { git = "-x" }\n', "source"),
        ('source = { git = "ext::sh -c id" }\n', "source"),
        ('source = { ref = "x" }\n', "source.git"),
        ('source = ""\n', "source"),
        ('source = { git = "https://x/y", ref = "--upload-pack=id" }\n', "source"),
        ('source = { git = "https://x/y", ref = "a b" }\n', "source"),
        ('source = { git = "https://x/y", reff = "a" }\n', "source.reff"),
        ("database = { env = 'a b' }\n", "database.env"),
        ('database = { command = "" }\n', "database.command"),
    ],
)
def test_rules_of_one_app(text: str, key: str) -> None:
    given = text.split(" =")[0]
    base = "\n".join(line for line in APP.splitlines() if line.split(" =")[0] != given) + "\n"
    found = only(f"[apps.blog]\n{base}{text}")
    assert found.key == key and found.line >= 1 and found.what and found.allowed


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('address = "-oProxyCommand=id"\n', "address"),
        ('address = "a b"\n', "address"),
        ('address = "root@a"\n', "address"),
        ('address = "a:22"\n', "address"),
        ('address = "a;b"\n', "address"),
        ('user = "-x"\n', "user"),
        ('user = "a b"\n', "user"),
        ("port = 0\n", "port"),
        ("port = 65536\n", "port"),
        ("port = true\n", "port"),
        ('roles = ["db"]\n', "roles[1]"),
        ('roles = "web"\n', "roles"),
        ('recipes = ["../x"]\n', "recipes[1]"),
        ('recipes = ["a-b"]\n', "recipes[1]"),
        ("keys = 1\n", "keys"),
        ("vagrant = true\n", "vagrant"),
        ('vagrant = " "\n', "vagrant"),
        ('vagrant = { folder = "x" }\n', "vagrant.machine"),
        ('vagrant = { folder = "x", machine = "-h" }\n', "vagrant"),
        ('vagrant = { folder = "x", machine = "a b" }\n', "vagrant"),
        ('address = "h"\nvagrant = "x"\n', "address"),
        ('port = 22\nvagrant = "x"\n', "port"),
    ],
)
def test_rules_of_one_host(text: str, key: str) -> None:
    found = only(f"[hosts.web1]\n{text}")
    assert (found.table, found.key, found.line) == ("hosts.web1", key, 2)


@pytest.mark.parametrize("name", ["a b", "-x", "a@b", "a,b", "a:b", "", "a/b", "\u00e4"])
def test_names_of_hosts(name: str) -> None:
    assert "no host's name" in only(f'[hosts."{name}"]\n').what


def test_two_hosts_with_one_address() -> None:
    assert "same machine" in only('[hosts.a]\naddress = "h"\n[hosts.b]\naddress = "h"\n').what
    assert read('[hosts.a]\naddress = "h"\n[hosts.b]\naddress = "h"\nport = 2222\n').hosts


def test_vagrant_machines() -> None:
    text = (
        '[hosts.web1]\nvagrant = "vagrant"\n[hosts.web2]\nuser = "root"\nvagrant = { folder = "../v", machine = "x" }\n'
    )
    web1, web2 = read(text).hosts
    assert web1.vagrant == VagrantEntry(Path("/project/vagrant"), "web1")
    assert web2.vagrant == VagrantEntry(Path("/v"), "x") and web2.user == "root"
    assert read("[hosts.web1]\n").hosts[0].vagrant is None
    same = '[hosts.a]\nvagrant = { folder = "v", machine = "x" }\n[hosts.x]\nvagrant = "v"\n'
    assert "[hosts.a] is the same machine" in only(same).what


@pytest.mark.parametrize(
    "address", ["203.0.113.7", "2001:db8::1", "[2001:db8::1]", "fe80::1%eth0", "web.example", "alias_1"]
)
def test_addresses(address: str) -> None:
    assert read(f'[hosts.web1]\naddress = "{address}"\n').hosts[0].address == address.strip("[]")


def env(text: str, more: str = "") -> str:
    return app(f"{more}[apps.blog.env]\n{text}\n")


@pytest.mark.parametrize(
    ("text", "more", "meant"),
    [
        ('A = "${database.hots}"', "", "${database.host}"),
        ('A = "${db.host}"', "", "${database.host}"),
        ('A = "${redis.url}"', "", ""),
        ('A = "${database.password}"', "", ""),
        ('A = "${database.host}"', 'database = "none"\n', ""),
        ('A = "${database.host}"', 'database = "sqlite"\n', ""),
        ('A = "${media.url}"', "media = false\n", ""),
        ('A = "${"', "", ""),
        ('A = "x ${database.host"', "", ""),
        ('A = "${}"', "", ""),
        ('"1A" = "x"', "", ""),
        ('"A B" = "x"', "", "A_B"),
        ('"A=B" = "x"', "", "A_B"),
        ('"" = "x"', "", ""),
        ('A = "a\\u0000b"', "", ""),
        ("A = true", "", '"true"'),
        ("A = 4", "", '"4"'),
        ("A = ['x']", "", '"x"'),
    ],
)
def test_rules_of_the_environment(text: str, more: str, meant: str) -> None:
    found = only(env(text, more))
    assert found.table == "apps.blog.env" and found.suggestion == meant


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ('A = "${database.host}:${database.port}/${app.domain}"', ""),
        ('A = "$${not.one} $HOME $ {"', ""),
        ('A = "${redis.url}"', "redis = true\n"),
        ('A = "${database.url}"', 'database = "sqlite"\n'),
        ('A = "${database.password}"', 'database = { env = "X" }\n'),
        ('A = "${data.dir} ${static.root}"', ""),
        ('_a1 = ""', ""),
    ],
)
def test_environment_that_is_fine(text: str, more: str) -> None:
    assert read(env(text, more)).apps[0].env
