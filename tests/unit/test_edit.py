"""Edits of deploykit.toml: whatever its layout, no other byte changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploykit.config import loads
from deploykit.config.toml import parse
from deploykit.detect import Detected
from deploykit.draft import app_table
from deploykit.edit import add_app, fabfile_text, gitignore_text, init_text, remove_app
from deploykit.errors import DeploykitError


def read(text: str) -> dict[str, Any]:
    return parse(text, "f")


VALUES = {"source": "../new", "domains": ["new.example"], "env": {"A": 'x "y" ${z}', "B": {"env": "X"}}}

ODD = [
    "",
    "# only a comment",
    "# only a comment\n\n\n",
    '[hosts.web1]   # mine\naddress="x"\n\n# about blog\n[apps.blog]\nsource = "b"\n'
    'domains = [ # many\n  "a.example", # first\n]\n',
    '[apps.blog]\nsource = "b"\ndomains = ["b.example"]',
    'apps.blog.source = "b"\napps.blog.domains = ["b.example"]\n',
    "[apps]\nblog.source = 'b'\nblog.domains = ['b.example'] # end\n\t\n",
    '[apps]\nblog = { source = "b", domains = ["b.example"] }\n',
    'apps = { blog = { source = "b", domains = ["b.example"] } } # inline\n[hosts.web1]\n',
    '["apps"."blog"]\n"source" = """\nb"""\ndomains = ["b.example",]\n'
    '[hosts.web1]\n  [apps.blog.env]\n  A = "1"\n# tail',
    "[apps.blog.env]\nA = '''\n[apps.new]\n'''\n[hosts.web1]\n# x\n[apps.blog]\nsource='b'\ndomains=['b.example']\n",
]
ODD += [text.replace("\n", "\r\n") for text in ODD if "\n" in text]


@pytest.mark.parametrize("text", ODD)
def test_what_was_there_stays_byte_for_byte(text: str) -> None:
    made = add_app(text, "new", VALUES, ["which server?"])
    assert read(made) == {
        **read(text),
        "apps": {**read(text).get("apps", {}), "new": VALUES},
    }
    if "inline" in text:
        assert made.startswith('apps = { blog = { source = "b", domains = ["b.example"] }')
        assert made.rstrip().endswith("[hosts.web1]")
    else:
        assert made.startswith(text) and "# which server?" in made
        assert made.endswith("\n")
    if "\r\n" in text and "inline" not in text:
        assert made.count("\n") == made.count("\r\n")


@pytest.mark.parametrize("text", ODD)
def test_adding_and_removing_leaves_no_trace(text: str) -> None:
    back = remove_app(add_app(text, "new", VALUES, ["why?"], {"source": "a note"}), "new")
    assert back.rstrip() == text.rstrip() and back.startswith(text.rstrip())
    assert read(back).get("apps", {}) == read(text).get("apps", {})


@pytest.mark.parametrize("text", [text for text in ODD if "blog" in text])
def test_removing_an_app_of_any_layout(text: str) -> None:
    made = remove_app(text, "blog")
    left = read(text)
    del left["apps"]["blog"]
    if not left["apps"] and "apps" not in read(made):
        del left["apps"]
    assert read(made) == left
    for kept in ("[hosts.web1]   # mine", "# tail", "# inline"):
        assert (kept in made) == (kept in text)


def test_removing_takes_what_belongs_to_the_app_and_nothing_else() -> None:
    text = (
        "# top\n\n# about one\n[apps.one]\nsource = 'a' # why\n# inside\n\n[apps.one.env]\nA = 'x'\n# end of one\n\n"
        "# alone\n\n# about two\n[apps.two]\nsource = 'b'\n\n[hosts.web1]\n[apps.one.web]\nworkers = 2\n"
    )
    assert remove_app(text, "one") == (
        "# top\n\n# end of one\n\n# alone\n\n# about two\n[apps.two]\nsource = 'b'\n\n[hosts.web1]\n"
    )


def test_refusals() -> None:
    text = '[apps.blog]\nsource = "b"\n'
    with pytest.raises(DeploykitError, match="blog is there already"):
        add_app(text, "blog", VALUES)
    with pytest.raises(DeploykitError, match="no app") as caught:
        remove_app(text, "blogg")
    assert "blog" in caught.value.todo
    for name in ("../x", "a.b", 'a"]\n[x', "root", "A", ""):
        with pytest.raises(DeploykitError):
            add_app(text, name, VALUES)
    with pytest.raises(DeploykitError, match="not TOML"):
        add_app("[x", "new", VALUES)


def test_values_that_try_to_break_out() -> None:
    for value in ('x"\n[apps.evil]\n', "a\\", "'''", '"""', "\u2028", "a\tb", "#", "${x}", "\x7f", ""):
        values = {"source": value, "domains": [value], "env": {"A": value, "B": {"command": value}}}
        made = add_app("# x\n", "new", values, [value], {"source": value})
        assert read(made) == {"apps": {"new": values}}
        assert made.count("[apps.") - value.count("[apps.") * 5 <= 3


def test_the_starter_loads_with_nothing_in_it() -> None:
    project = loads(init_text(), Path("/x/deploykit.toml"))
    assert project.hosts == () and project.apps == ()
    shown = "\n".join(
        line.removeprefix("# ")
        for line in init_text().splitlines()
        if line.startswith(("# [", "# ")) and ("=" in line or "# [" in line)
    )
    started = loads(shown.replace("Every key", "# Every key"), Path("/x/deploykit.toml"))
    assert started.names == ("blog",) and started.host("web1").user == "root"


def test_only_what_differs_from_the_defaults() -> None:
    usual = Detected(
        "",
        settings="c.s",
        wsgi="c.w:a",
        requirements=("requirements.txt",),
        database="postgres",
        env={"SECRET_KEY": True},
    )
    draft = app_table("blog", "../blog", ["blog.example"], usual)
    assert draft.values == {"source": "../blog", "domains": ["blog.example"]} and not draft.questions
    odd = Detected(
        "web",
        others=("old",),
        settings="c.s",
        wsgi="c.w:a",
        requirements=("requirements.txt",),
        database="postgres",
        redis=True,
        health="/up",
        env={
            "DB_HOST": False,
            "POSTGRES_DB": True,
            "DB_PASSWORD": True,
            "CELERY_BROKER_URL": True,
            "STRIPE": True,
            "LOG": False,
        },
    )
    draft = app_table("blog", "../blog", ["blog.example"], odd)
    assert draft.values["root"] == "web" and draft.values["redis"] is True and draft.values["health"] == "/up"
    assert draft.values["env"] == {
        "DB_HOST": "${database.host}", "POSTGRES_DB": "${database.name}", "DB_PASSWORD": "",
        "CELERY_BROKER_URL": "${redis.celery}",
    }  # fmt: skip
    assert draft.questions == ('env.STRIPE = { env = "STRIPE" }  # the settings need it',)
    made = add_app(init_text(), "blog", draft.values, draft.questions, draft.comments)
    assert loads(made, Path("/x/deploykit.toml")).names == ("blog",)
    lost = app_table("blog", "x", ["a.example"], Detected("", database="mysql"))
    assert len(lost.questions) == 4


def test_sqlite_is_written() -> None:
    one = Detected("", settings="c.s", wsgi="c.w:a", requirements=("r.txt",), database="sqlite", env={"DB_HOST": False})
    assert app_table("blog", "x", ["a.example"], one).values == {
        "source": "x",
        "domains": ["a.example"],
        "database": "sqlite",
    }


def test_other_files() -> None:
    compile(fabfile_text(), "fabfile.py", "exec")
    assert fabfile_text().startswith("from deploykit.tasks import *")
    assert gitignore_text("") == ".deploykit/\n"
    assert gitignore_text("*.pyc") == "*.pyc\n.deploykit/\n"
    assert gitignore_text("a\r\n") == "a\r\n.deploykit/\r\n"
    assert gitignore_text("x\n.deploykit\n") == "x\n.deploykit\n"
