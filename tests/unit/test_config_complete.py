"""Project and sources -> values.Host; which hosts `--host` means; values from the environment and from commands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.agent import values
from deploykit.agent.secret import HostSecret, Secret
from deploykit.config import choose, complete, loads, resolve
from deploykit.config.interpreters import fits
from deploykit.config.project import Project
from deploykit.errors import ConfigError, DeploykitError

DJANGO = {
    "manage.py": 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")\n',
    "config/__init__.py": "",
    "config/settings.py": 'STATIC_URL = "static/"\nMEDIA_URL = "/uploads/"\n'
    'WSGI_APPLICATION = "config.wsgi.application"\n',
    "config/wsgi.py": "",
    "config/asgi.py": "",
    "requirements.txt": "django==5.2\n",
}


class Memory:
    """A source tree of texts."""

    def __init__(self, files: dict[str, str], folder: Path | None = None) -> None:
        self.files = files
        self.folder = folder
        self.label = "main@3f2a91c"
        self.digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()

    @property
    def paths(self) -> Sequence[str]:
        return sorted(self.files)

    def read(self, path: str) -> bytes:
        return self.files[path].encode()


def read(text: str) -> Project:
    return loads(text, Path("/project/deploykit.toml"))


def app(more: str = "", name: str = "blog") -> str:
    return f'[apps.{name}]\nsource = "../{name}"\ndomains = ["{name}.example"]\n{more}'


def done(more: str = "", files: dict[str, str] | None = None) -> values.App:
    project = resolve(read("[hosts.web1]\n" + app(more)), {"X": "x://from outside"})
    return complete(project, choose(project)[0], {"blog": Memory(DJANGO if files is None else files)}).apps[0]


def test_defaults_come_from_the_source() -> None:
    found = done()
    assert found.settings == "config.settings"
    assert found.web == values.Web("wsgi", "config.wsgi:application")
    assert found.static == values.Served("/static/") and found.media == values.Served("/uploads/")
    assert (found.python.kind, found.python.files, found.python.version) == ("requirements", ("requirements.txt",), "")
    assert found.database == values.Database("postgres", "blog") and found.redis is None
    assert found.code.root == "" and found.code.label == "main@3f2a91c" and len(found.code.digest) == 64
    assert found.domains == ("blog.example",) and found.user == "blog"


def test_the_file_wins_over_the_source() -> None:
    found = done(
        'settings = "config.other"\nasgi = "config.asgi:app"\nstatic = "/s/"\nmedia = false\nredis = { memory = 9 }\n'
        'database = "sqlite"\nrequirements = []\nhealth = "/up"\n[apps.blog.web]\nworkers = 2\n'
    )
    assert found.settings == "config.other"
    assert found.web == values.Web("asgi", "config.asgi:app", workers=2)
    assert found.static == values.Served("/s/") and found.media is None and found.redis == values.Redis(9)
    assert found.database == values.Database("sqlite", "") and found.python.kind == "none" and found.health == "/up"


def test_media_only_when_the_settings_mention_it() -> None:
    files = {**DJANGO, "config/settings.py": 'STATIC_URL = "https://cdn.example/s/"\n'}
    found = done("", files)
    assert found.media is None and found.static is None
    assert done("media = true\n", files).media == values.Served("/media/")


@pytest.mark.parametrize("url", ["/s/ { return 200; } location /x", "/s;x/", "/a b/", "/${x}/", "/a\nb/", '/"x"/'])
@pytest.mark.parametrize(("name", "key"), [("STATIC_URL", "static"), ("MEDIA_URL", "media")])
def test_a_url_of_the_settings_never_becomes_configuration_of_nginx(name: str, key: str, url: str) -> None:
    text = "".join(
        f"{each} = {value!r}\n" for each, value in {"STATIC_URL": "s/", "MEDIA_URL": "m/", name: url}.items()
    )
    files = {**DJANGO, "config/settings.py": text + 'WSGI_APPLICATION = "config.wsgi.application"\n'}
    with pytest.raises(ConfigError) as caught:
        done("", files)
    (problem,) = caught.value.problems
    assert problem.key == key and name in problem.what and problem.what.isprintable()
    assert done(f'{key} = "/mine/"\n', files), "the file's own word settles it"


def test_an_application_of_the_settings_never_becomes_words_of_a_shell() -> None:
    text = 'STATIC_URL = "s/"\nWSGI_APPLICATION = "config.wsgi.x;touch /tmp/y"\n'
    with pytest.raises(ConfigError, match="not the name of an application"):
        done("", {**DJANGO, "config/settings.py": text})


def test_environment() -> None:
    found = done(
        'database = { env = "X" }\n[apps.blog.env]\nA = "a ${app.name} $${b}"\n'
        'B = { secret = "B" }\nC = { env = "X" }\n'
    )
    assert dict(found.env) == {"A": "a ${app.name} $${b}", "B": HostSecret("B"), "C": Secret("x://from outside")}
    assert found.env["C"] == Secret("x://from outside") and "x://from outside" not in repr(found)


def test_a_project_in_a_folder_of_the_source() -> None:
    files = {f"backend/{path}": text for path, text in DJANGO.items()} | {"README": ""}
    found = done("", files)
    assert found.code.root == "backend" and found.settings == "config.settings"
    assert found.python.files == ("backend/requirements.txt",)
    assert done('root = "./backend/"\n', files).code.root == "backend"


def mistakes(more: str, files: dict[str, str]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        done(more, files)
    assert all(each.what and each.table == "apps.blog" for each in caught.value.problems)
    return [(each.key, each.what) for each in caught.value.problems]


def without(*paths: str) -> dict[str, str]:
    return {path: text for path, text in DJANGO.items() if path not in paths}


def test_what_is_missing_is_said_at_once() -> None:
    assert [key for key, _ in mistakes("", without("config/settings.py", "requirements.txt"))] == [
        "settings",
        "requirements",
    ]
    assert "no manage.py" in mistakes("", without("manage.py"))[0][1]
    assert mistakes('root = "x"\n', DJANGO)[0][0] == "root"
    files = without("config/wsgi.py", "config/asgi.py")
    assert [key for key, _ in mistakes("", files)] == ["wsgi"]
    assert "pipenv lock" in mistakes("", {**without("requirements.txt"), "Pipfile": ""})[0][1]
    assert mistakes('extras = ["x"]\n', DJANGO)[0][0] == "extras"
    bare = without("requirements.txt")
    assert done('packages = ["django"]\n', bare).python.packages == ("django",)
    assert done('install = "pip install django"\n', bare).python.kind == "commands"
    assert "r.txt is not in the source" in mistakes('requirements = "r.txt"\n', DJANGO)[0][1]
    wants = {**DJANGO, "pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.12"\n'}
    assert mistakes('python = "3.11"\n', wants) == [("python", "it wants Python >=3.12, and this is 3.11")]
    assert done('python = "3.12"\n', wants).python.version == "3.12"
    elsewhere = {**DJANGO, "build/pyproject.toml": wants["pyproject.toml"] + "dependencies = []\n"}
    named = 'requirements = "build/pyproject.toml"\n'
    assert mistakes(f'python = "3.11"\n{named}', elsewhere)[0][0] == "python"
    assert done(named, {**elsewhere, ".python-version": "3.13"}).python.hint == (".python-version", "3.13")


PACKAGED = """\
[hosts.web1]
[apps.tickets]
domains = ["tickets.example"]
packages = ["pretix"]
settings = "pretix.settings"
wsgi = "pretix.wsgi:application"
"""


def test_a_project_that_is_an_installed_package_needs_neither_source_nor_manage_py() -> None:
    project = resolve(read(PACKAGED), {})
    assert str(project.apps[0].source) == "packages alone"
    found = complete(project, choose(project)[0], {"tickets": Memory({})}).apps[0]
    assert (found.code.root, found.settings) == ("", "pretix.settings")
    assert found.web.application == "pretix.wsgi:application"
    inside = 'settings = "shop.settings"\nwsgi = "shop.wsgi:application"\nrequirements = "r.txt"\nroot = "src"\n'
    assert done(inside, {"r.txt": "shop", "src/local.py": ""}).code.root == "src"
    assert mistakes(inside, {"r.txt": "shop"}) == [("root", "there is no folder src (/blog)")]
    for text in (PACKAGED.replace('settings = "pretix.settings"\n', ""), PACKAGED.replace("packages", "extras")):
        with pytest.raises(ConfigError) as caught:
            read(text)
        assert [(each.key, each.what) for each in caught.value.problems] == [("source", "this key is missing")]


def test_asgi_when_there_is_nothing_else() -> None:
    assert done("", {**without("config/wsgi.py"), "config/settings.py": ""}).web.interface == "asgi"


def test_apps_of_a_host() -> None:
    text = "[hosts.a]\n[hosts.b]\nroles = ['database']\n[hosts.c]\n"
    project = read(text + app("", "one") + app('hosts = ["c"]\n', "two"))
    trees = {"one": Memory(DJANGO), "two": Memory(DJANGO)}

    def names(host: str, apps: list[str] | None = None) -> list[str]:
        return [each.name for each in complete(project, choose(project, host)[0], trees, apps).apps]

    assert names("a") == ["one"] and names("b") == [] and names("c") == ["one", "two"]
    assert names("root@203.0.113.9") == ["one"] and names("c", ["two"]) == ["two"]


@pytest.mark.parametrize(
    ("wanted", "version", "answer"),
    [
        (">=3.10", "3.11", True),
        (">=3.12", "3.11.2", False),
        (">=3.10,<3.12", "3.12", False),
        ("~=3.11", "3.12.1", True),
        ("~=3.11.0", "3.12", False),
        ("==3.11.*", "3.11.2", True),
        ("!=3.11.*", "3.11", False),
        (">=3.11.4", "3.11", True),
        (">=3.11.4", "3.11.2", False),
        ("<4", "3.14", True),
        (">3.9", "3.10", True),
        ("", "3.10", True),
        ("strange", "3.10", True),
    ],
)
def test_requires_python(wanted: str, version: str, answer: bool) -> None:
    assert fits(wanted, version) is answer


def test_choose() -> None:
    one = read('[hosts.web1]\naddress = "203.0.113.7"\nuser = "root"\n')
    assert [each.name for each in choose(one, "")] == ["web1"]
    two = read('[hosts.web1]\naddress = "203.0.113.7"\nport = 22\n[hosts.web2]\n')
    assert [each.name for each in choose(two, " web2, web1,web2,")] == ["web2", "web1"]
    typed = choose(two, "admin@other.example:2222")[0]
    assert (typed.address, typed.user, typed.port, typed.listed) == ("other.example", "admin", 2222, False)
    assert choose(two, "wep1")[0].meant == "web1"
    assert choose(two, "[2001:db8::1]:22")[0].address == "2001:db8::1" == choose(two, "2001:db8::1")[0].address
    same = choose(two, "admin@203.0.113.7")[0]
    assert (same.name, same.user, same.port, same.listed) == ("web1", "admin", 22, True)
    assert [each.name for each in choose(two, "203.0.113.7,web1")] == ["web1"]
    assert choose(two, "203.0.113.7:2200")[0].listed is False
    for text, words in ((" ", "there are 2 hosts"), (",", "names no host")):
        with pytest.raises(DeploykitError, match=words):
            choose(two, text)
    with pytest.raises(DeploykitError, match="no host is in the file"):
        choose(read(""), "")


@pytest.mark.parametrize(
    "text", ["-oProxyCommand=id", "a b", "a;b", "@a", "a@", "a:x", "a:99999", "a/b", "$(id)", "a@b@c", "\u00e4", "a\nb"]
)
def test_hostile_targets(text: str) -> None:
    with pytest.raises(DeploykitError, match="is no host"):
        choose(read("[hosts.web1]\n"), text)


VALUES = (
    "[apps.blog.env]\nA = { env = 'A' }\nB = { command = 'show \"b c\"' }\nC = { command = 'show \"b c\"' }\nD = 'd'\n"
)


def test_resolve() -> None:
    asked: list[tuple[Sequence[str], Path]] = []

    def run(words: Sequence[str], folder: Path) -> str:
        asked.append((words, folder))
        return "two\nlines\n"

    done = resolve(read(app(VALUES)), {"A": "a ${x}"}, run)
    assert dict(done.apps[0].env) == {
        "A": Secret("a ${x}"),
        "B": Secret("two\nlines"),
        "C": Secret("two\nlines"),
        "D": "d",
    }
    assert asked == [(["show", "b c"], Path("/project"))]


def test_resolve_reports_everything_at_once() -> None:
    def run(words: Sequence[str], folder: Path) -> str:
        raise DeploykitError("show failed with 1: no such entry")

    text = app('database = { env = "DB" }\n' + VALUES) + app("[apps.other.env]\nZ = { env = 'Z' }\n", "other")
    with pytest.raises(ConfigError) as caught:
        resolve(read(text), {}, run)
    assert [(each.table, each.key) for each in caught.value.problems] == [
        ("apps.blog.env", "A"), ("apps.blog.env", "B"), ("apps.blog.env", "C"), ("apps.blog", "database"),
        ("apps.other.env", "Z"),
    ]  # fmt: skip
    assert "show failed with 1: no such entry" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        resolve(read(text), {"DB": "no url", "A": "", "Z": ""}, lambda words, folder: "x")
    assert [each.key for each in caught.value.problems] == ["database"]
    left = resolve(read(text), {"Z": "z"}, run, apps=["other"])
    assert left.app("other").env == {"Z": Secret("z")}


def test_resolve_with_real_commands(tmp_path: Path) -> None:
    def one(command: str) -> str:
        project = replace(read(app(f"[apps.blog.env]\nA = {{ command = {command!r} }}\n")), folder=tmp_path)
        value = resolve(project, {}).apps[0].env["A"]
        assert isinstance(value, Secret)
        return value.reveal()

    assert one("printf 'a b$HOME;\\n\\n'") == "a b$HOME;\n"
    assert one("pwd") == str(tmp_path)
    for command, words in (
        ("no-such-program-here", "cannot be run"),
        ("false", "false failed with 1"),
        ("true", "printed nothing"),
        ("ls /no/such/folder", "No such file"),
        ("echo 'x", "cannot be split"),
        ("printf 'a\\000b'", "NUL"),
    ):
        with pytest.raises(ConfigError) as caught:
            one(command.replace("'", '"'))
        assert words in str(caught.value), command
