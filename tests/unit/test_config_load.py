"""deploykit.toml -> Project: what is read, and every mistake with its place, its rule and what was meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.agent.secret import HostSecret, Secret
from deploykit.agent.values import Redis
from deploykit.config import load, loads
from deploykit.config.models import FromCommand, FromEnv
from deploykit.config.project import Project
from deploykit.errors import ConfigError, DeploykitError, Problem

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


def test_smallest_app_has_every_default() -> None:
    entry = read(app()).apps[0]
    assert entry.name == "blog"
    assert entry.source.folder == Path("/blog")
    assert entry.domains == ("blog.example",)
    assert (entry.database.kind, entry.database.name) == ("postgres", "blog")
    assert entry.redis is None and entry.nginx and entry.keep == 5 and entry.env == {}
    assert (entry.web.workers, entry.web.threads, entry.web.timeout, entry.web.max_body) == (0, 2, 30, 20)
    assert entry.settings is None and entry.root is None and entry.requirements is None
    assert entry.static is None and entry.media is None


def test_everything_that_may_be_said() -> None:
    project = read("""
[hosts.web1]
address = "203.0.113.7"
user = "root"
port = 2222
roles = ["web", "database"]
recipes = ["firewall"]
[hosts.web2]

[apps.memo-ries]
source = { git = "https://example.com/memories.git", ref = "v1.2" }
root = "backend"
domains = ["Memories.Example", "*.memories.example", "b\u00fccher.example"]
redirects = ["www.memories.example"]
hosts = ["web1"]
python = "3.12"
requirements = ["requirements/base.txt", "requirements/live.txt"]
settings = "config.settings.production"
asgi = "config.asgi:application"
database = { kind = "postgres", name = "x" }
redis = { memory = 64 }
static = "/static/"
media = false
health = "/healthz"
exclude = ["*.psd"]
keep = 2
tls = { certificate = "/etc/ssl/x.pem", key = "/etc/ssl/x.key" }
[apps.memo-ries.web]
workers = 3
threads = 4
timeout = 60
max_body = "1g"
[apps.memo-ries.env]
A = 'x % # $ & " , {"json": [1]}'
B = { secret = "B" }
C = { env = "X" }
D = { command = "pass show x" }
E = '''
two
lines'''
""")
    assert project.folder == Path("/project")
    assert project.names == ("memo-ries",)
    host = project.host("web1")
    assert (host.address, host.user, host.port, host.roles) == ("203.0.113.7", "root", 2222, ("web", "database"))
    assert host.recipes == ("firewall",) and project.host("web2").address == "web2"
    entry = project.app("memo-ries")
    assert (entry.source.git, entry.source.ref) == ("https://example.com/memories.git", "v1.2")
    assert entry.domains == ("memories.example", "*.memories.example", "xn--bcher-kva.example")
    assert entry.requirements == ("requirements/base.txt", "requirements/live.txt")
    assert (entry.web.interface, entry.web.application, entry.web.max_body) == ("asgi", "config.asgi:application", 1024)
    assert entry.redis == Redis(64) and entry.static == "/static/" and entry.media is False
    assert entry.tls is not None and entry.tls.key == "/etc/ssl/x.key"
    assert entry.env["B"] == HostSecret("B")
    assert entry.env["C"] == FromEnv("X") and entry.env["D"] == FromCommand("pass show x")
    assert entry.env["E"] == "two\nlines"
    assert [each.name for each in project.apps_of(host)] == ["memo-ries"]
    assert project.apps_of(project.host("web2")) == ()


def test_all_mistakes_at_once_in_the_order_of_lines() -> None:
    found = problems("""\
[hosts.web1]
adress = "203.0.113.7"
port = "22"
roles = ["web", "databse"]

[apps.Blog]
source = "../blog"
domains = ["blog.example",
  # between
  "my_blog.example"]
databse = "postgres"

[apps.blog]
domains = "x.example"
env = { A = 4, "B-C" = "x" }
[app.x]
""")
    seen = [(each.line, each.table, each.key, each.suggestion) for each in found]
    assert seen == [
        (2, "hosts.web1", "adress", "address"),
        (3, "hosts.web1", "port", "22"),
        (4, "hosts.web1", "roles[2]", '"database"'),
        (6, "apps.Blog", "", "blog"),
        (10, "apps.Blog", "domains[2]", '"my-blog.example"'),
        (11, "apps.Blog", "databse", "database"),
        (13, "apps.blog", "source", ""),
        (14, "apps.blog", "domains", '["x.example"]'),
        (15, "apps.blog.env", "A", '"4"'),
        (15, "apps.blog.env", "B-C", "B_C"),
        (16, "app", "", "apps"),
    ]
    assert all(each.allowed for each in found)


def test_lines_say_where_what_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        read(app("databse = 4\n"))
    first, second, third = caught.value.lines()
    assert first == "/project/deploykit.toml:4: [apps.blog] databse: there is no such key"
    assert second == "  did you mean: database"
    assert third.startswith("  allowed: source, domains, ")


def test_words_are_not_pydantics() -> None:
    text = "\n".join(
        line
        for each in problems(app("keep = 1\nnginx = 0\nredis = 'x'\nsource = 1\n".replace("source = 1\n", "")))
        for line in each.lines("f")
    )
    for jargon in ("Input", "type=", "pydantic", "validation", "str_type", "None"):
        assert jargon not in text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[apps.blog\n", 1, "not TOML"),
        ("a = 1\nb 2\n", 2, "followed by ="),
        ("a = 1\na = 2\n", 2, "given twice"),
        ("[hosts.a]\n[hosts.a]\n", 2, "[hosts.a] is given twice"),
        ("a = 1\nb = x\n", 2, "text stands in quotes"),
        ('a = "x\n', 1, "not TOML"),
        ("[apps.blog]\nx = [1,\n", 2, "end of the file"),
    ],
)
def test_syntax_errors_have_line_and_column(text: str, line: int, words: str) -> None:
    found = only(text)
    assert found.line == line and words in found.what
    assert "column" in found.what or "end of the file" in found.what


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DeploykitError, match="no such file") as caught:
        load(tmp_path)
    assert "fab init" in caught.value.todo
    (tmp_path / "deploykit.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(DeploykitError, match="byte 6 is not UTF-8"):
        load(tmp_path)
    (tmp_path / "deploykit.toml").write_bytes(b"\xef\xbb\xbf[hosts.web1]\r\n")
    assert load(tmp_path / "deploykit.toml").host("web1").address == "web1"


def env(text: str, more: str = "") -> str:
    return app(f"{more}[apps.blog.env]\n{text}\n")


def test_unknown_keys_in_sources_of_values() -> None:
    assert [each.key for each in problems(env('A = { secert = "X" }'))] == ["A.secert"]
    assert [each.key for each in problems(env('A = { env = "X", command = "y" }'))] == ["A.command"]


def test_warnings_are_no_mistakes() -> None:
    project = read(env('SECRET_KEY = "x"', 'database = "postgres://u:pw@h/db"\n'))
    assert [(each.key, each.line) for each in project.warnings] == [("database", 4), ("SECRET_KEY", 6)]
    assert "pw" not in repr(project)
    assert project.apps[0].database.url == Secret("postgres://u:pw@h/db")
    assert read(env('SECRET_KEY = { env = "X" }', 'database = "postgres://h/db"\n')).warnings == ()


def test_sources() -> None:
    def source(text: str) -> str:
        return str(read(f'[apps.blog]\ndomains = ["a.example"]\nsource = {text}\n').apps[0].source)

    assert source('"."') == "/project"
    assert source('"/abs/x"') == "/abs/x"
    assert source('"https://example.com/x.git"') == "https://example.com/x.git at HEAD"
    assert source('"git@example.com:me/x.git"') == "git@example.com:me/x.git at HEAD"
    assert source('{ git = "../x", ref = "feature/y" }') == "/x at feature/y"
    assert source('"~/x"') == str(Path.home() / "x")


def test_unknown_names_list_what_there_is() -> None:
    project = read("[hosts.web1]\n" + app())
    with pytest.raises(DeploykitError, match="no app") as caught:
        project.app("blogg")
    assert "did you mean: blog" in caught.value.todo
    with pytest.raises(DeploykitError, match="no host"):
        project.host("x")


def test_loading_is_light() -> None:
    code = "import sys, deploykit.config as c, pathlib; c.loads('[hosts.a]', pathlib.Path('x')); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "tomlkit", "rich", "fabric", "invoke", "paramiko", "jinja2"} & set(done.stdout.split())
