"""Secrets that the host invents because the file says so: `{ secret = "X", make = 40 }`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_config_rules import app, only, read
from test_files import BLOG, clear
from test_localenv import made

from deploykit.agent import paths, store
from deploykit.agent.envfile import EnvFile
from deploykit.agent.resource import HostSecret, Secret
from deploykit.agent.values import ConfigFile, Value
from deploykit.config.project import AppEntry
from deploykit.recipes import files
from deploykit.recipes.app import environment
from deploykit.rendering import renderer
from deploykit.screen import Screen
from deploykit.tables import secrets


def env(**values: str) -> str:
    return "env = { " + ", ".join(f"{name} = {value}" for name, value in values.items()) + " }\n"


def entry(text: str) -> AppEntry:
    return read(app(text)).apps[0]


def test_the_file_says_how_long_it_is() -> None:
    found = entry(env(FIELD_KEY='{ secret = "FIELD", make = 40 }', TOKEN='{ secret = "TOKEN" }'))
    assert found.env == {"FIELD_KEY": HostSecret("FIELD", 40), "TOKEN": HostSecret("TOKEN")}
    assert found.invented == ("FIELD",) and found.secrets == ("FIELD", "TOKEN")


@pytest.mark.parametrize(
    ("text", "line", "where", "words"),
    [
        (env(A='{ secret = "A", make = 8 }'), 4, "A.make", "8 is out of range"),
        (env(A='{ secret = "A", make = 0 }'), 4, "A.make", "0 is out of range"),
        (env(A='{ secret = "A", make = 4096 }'), 4, "A.make", "4096 is out of range"),
        (env(A='{ secret = "A", make = "40" }'), 4, "A.make", "text does not fit"),
        (env(A='{ secret = "A", make = true }'), 4, "A.make", "true does not fit"),
        (env(A='{ env = "A", make = 40 }'), 4, "A.make", "no such key"),
        (env(A='{ secret = "S", make = 40 }', B='{ secret = "S", make = 50 }'), 4, "B.make", "A makes S 40 characters"),
        ('database = { secret = "URL", make = 40 }\n', 4, "database.make", "no database's URL"),
        ('[apps.blog.nginx.basic_auth]\nanna = { secret = "P", make = 40 }\n', 5, "anna.make", "nobody would know"),
    ],
)
def test_what_is_refused(text: str, line: int, where: str, words: str) -> None:
    found = only(app(text))
    assert words in found.what and found.line == line, found
    assert f"{found.table}.{found.key}".endswith(where), found


def test_one_secret_is_invented_alike_for_all_its_names() -> None:
    """Whoever comes first makes it: so all of them must say the same."""
    given: dict[str, Value] = {"B": HostSecret("S"), "A": HostSecret("S", 40), "KEY": HostSecret("SECRET_KEY", 60)}
    found = environment(replace(BLOG, env=given), "r", "a", "/v")
    assert found["A"] == found["B"] == HostSecret("S", 40)
    assert found["KEY"] == found["SECRET_KEY"] == HostSecret("SECRET_KEY", 60), "the file's word counts"


def test_it_is_made_once_and_what_a_person_gives_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SECRETS", tmp_path)
    file = EnvFile(path="/x", variables=(("A", HostSecret("A", 40)),), app="blog")
    assert "made on the host" in file.values(make=False)["A"], "a plan makes nothing"
    first = file.values(make=True)["A"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", first)
    longer = EnvFile(path="/x", variables=(("A", HostSecret("A", 64)),), app="blog")
    assert file.values(make=True) == longer.values(make=True) == {"A": first}
    store.write("blog", "A", Secret("mine"))
    assert longer.values(make=True) == {"A": "mine"}


def test_a_configuration_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/a.j2").write_text("KEY = {{ env.KEY | python }}")
    blog = replace(BLOG, files=(ConfigFile("a.py", "a.j2"),), env={"KEY": HostSecret("KEY", 40)})
    ((_, content),) = files.contents(blog, environment(blog, "r", "a", "/v"), {}, renderer(tmp_path))
    assert "KEY = '" in clear(content, tmp_path, monkeypatch)


def test_a_list_says_that_it_is_yet_to_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"names": [], "used": [], "at": {}}
    secrets(Screen(), "web1", entry(env(A='{ secret = "A", make = 40 }', B='{ secret = "B" }')), answer)
    said = " ".join(capsys.readouterr().out.split())
    assert "made at the next deploy" in said and "missing: fab secrets set --app blog --name B" in said
    assert "--name A" not in said


def test_this_machine_makes_one_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    more = '[apps.blog.env]\nFIELD_KEY = { secret = "FIELD", make = 40 }\nALIAS = { secret = "FIELD" }\n'
    first = made(tmp_path, more).variables
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", first["FIELD_KEY"]) and first["ALIAS"] == first["FIELD_KEY"]
    assert made(tmp_path, more).variables["FIELD_KEY"] == first["FIELD_KEY"]
    assert json.loads((tmp_path / "secrets.json").read_text())["FIELD"] == first["FIELD_KEY"]
