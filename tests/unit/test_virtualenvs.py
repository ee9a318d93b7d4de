"""Which virtualenv an app has: what its key covers, what is added to it, and what comes before it is built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest

from deploykit.agent.deployment import Venv
from deploykit.agent.resource import Failed, Secret, encode
from deploykit.agent.values import App, Build, Code, Database, Facts, Host, Process, Python, Web
from deploykit.recipes import base, python
from deploykit.recipes.app import deployment

BOOKWORM = Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11")
READER = App("reader", ("reader.example",), Code("d"), "config.settings", database=Database("sqlite"))


def render(name: str | tuple[str, ...], **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[2] / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.select_template([name] if isinstance(name, str) else name).render(**values)


def venv(app: App) -> Venv:
    return deployment(app, BOOKWORM, render, 2).venv


def test_what_each_server_needs_is_added_once() -> None:
    app = replace(READER, python=Python(packages=("sentry-sdk",)))
    assert venv(app).extra == ("sentry-sdk", "gunicorn")
    asgi = Web("asgi", "config.asgi:application")
    assert venv(replace(app, web=asgi)).extra == ("sentry-sdk", "gunicorn", "uvicorn-worker", "websockets")
    beside = tuple(
        Process(server, web=replace(asgi, server=server), paths=(f"/{server}/",)) for server in ("daphne", "uvicorn")
    )
    assert venv(replace(app, processes=beside)).extra == ("sentry-sdk", "gunicorn", "daphne", "uvicorn", "websockets")
    assert venv(replace(app, web=replace(asgi, server="daphne"))).extra == ("sentry-sdk", "daphne")


def test_a_virtualenvs_key_covers_what_decides_its_contents() -> None:
    app = replace(READER, env={"GREETING": "hello", "TOKEN": Secret("s")})
    first = venv(app)
    same = (
        replace(app, env={"GREETING": "bye", "TOKEN": Secret("t")}),
        replace(app, code=Code("another")),
        replace(app, settings="config.other"),
    )
    assert {venv(each).key for each in same} == {first.key}
    other = (
        replace(app, apt=("libmagic1",)),
        replace(app, python=Python(digest="1")),
        replace(app, python=Python("3.12")),
        replace(app, python=Python(packages=("x",))),
        replace(app, env={"UV_DEFAULT_INDEX": "https://one.example/simple"}),
        replace(app, env={"CFLAGS": "-O3"}),
        replace(app, web=Web(server="daphne")),
    )
    assert len({first.key, *(venv(each).key for each in other)}) == len(other) + 1
    index = replace(app, python=Python(plain=True), env={"UV_DEFAULT_INDEX": Secret("https://u:one@x.example/simple")})
    renewed = replace(index, env={"UV_DEFAULT_INDEX": Secret("https://u:two@x.example/simple")})
    assert venv(index).key == venv(renewed).key and not venv(index).plain
    assert "u:one" not in json.dumps(encode(venv(index)))


def test_a_virtualenv_that_leads_into_a_release_is_that_releases_alone() -> None:
    tied = replace(READER, python=Python(local=True, tied=True))
    changed = (
        replace(tied, code=Code("another")),
        replace(tied, settings="config.other"),
        replace(tied, code=Code("d", "src")),
        replace(tied, build=Build((("after_checkout", "make"),))),
    )
    assert len({venv(each).key for each in (tied, *changed)}) == 5
    built = replace(READER, python=Python(local=True))
    assert venv(built).key == venv(replace(built, code=Code("another"))).key
    hooked = [replace(built, build=Build((("after_checkout", "make"),)), code=Code(name)) for name in "ab"]
    assert venv(hooked[0]).key != venv(hooked[1]).key, "the hook may have made a part of it"


def test_commands_see_references_and_no_secrets() -> None:
    app = replace(READER, python=Python(kind="commands", install=("make DATA=${data.dir} HOME=${HOME}",), tied=True))
    assert venv(app).install == ("make DATA=/srv/reader/data HOME=${HOME}",)
    secret = Database("url", url=Secret("postgres://u:secret@db.example/x"))
    with pytest.raises(Failed, match="of install of app reader has a secret in it"):
        venv(replace(app, database=secret, python=Python(kind="commands", install=("x ${database.password}",))))


def test_an_index_is_for_uv_and_for_pip() -> None:
    asked = Python(
        index="https://one.example/simple", extra_indexes=("https://two.example/simple", "https://x.example/")
    )
    given = dict(venv(replace(READER, python=asked)).environment)
    assert given["UV_DEFAULT_INDEX"] == given["PIP_INDEX_URL"] == "https://one.example/simple"
    assert given["UV_INDEX"] == given["PIP_EXTRA_INDEX_URL"] == "https://two.example/simple https://x.example/"
    assert not {"UV_DEFAULT_INDEX", "UV_INDEX"} & dict(venv(READER).environment).keys()


def test_packages_of_the_system_come_after_accounts_and_before_anything_is_built() -> None:
    apps = (replace(READER, apt=("gcc", "libmagic1")), replace(READER, name="other", apt=("gcc",)))
    host = Host("web1", apps=apps)
    keys = [each.key for recipe in (base, python) for each in recipe.recipe(host, BOOKWORM, render)]
    assert keys.index("user other") < keys.index("package gcc") < keys.index("package libmagic1") < keys.index("uv")
    assert keys.count("package gcc") == 1
    assert deployment(apps[1], BOOKWORM, render, 2).apt == ("gcc",)


@pytest.mark.parametrize(
    ("hint", "version", "words"),
    [
        ("3.12.4", "", '.python-version of reader says 3.12.4, and 3.11 is used; python = "3.12" would follow it'),
        ("3.12", "3.13", '.python-version of reader says 3.12, and 3.13 is used; python = "3.12" would follow it'),
        ("3.11.9", "", ""),
        ("3.12.1", "3.12", ""),
        ("", "", ""),
    ],
)
def test_a_hint_at_another_python_is_told(hint: str, version: str, words: str) -> None:
    app = replace(READER, python=Python(version, hint=(".python-version" if hint else "", hint)))
    said = [note.text for note in python.notes(Host("web1", apps=(app,)), BOOKWORM)]
    assert said == ([words] if words else [])
