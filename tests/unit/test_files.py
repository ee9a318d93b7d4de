"""Configuration files from the user's templates: what they are given, and that no secret is seen or spoilt."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from deploykit.agent import paths, store
from deploykit.agent.configfile import ConfigurationFile
from deploykit.agent.plan import examine
from deploykit.agent.resource import Failed, HostSecret, Joined, Resource, Secret, decode, encode
from deploykit.agent.secret import quote
from deploykit.agent.values import App, Build, Code, ConfigFile, Database, Facts, Host, Location, Site, Value
from deploykit.errors import DeploykitError
from deploykit.recipes import app as recipe
from deploykit.recipes import build, files
from deploykit.rendering import renderer

DIFFICULT = "a'b\"c\\d$e`f{{g}}%h é\u2028\x7f\nline two\ttab\r\n"
BOOKWORM = Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11")
BLOG = App("blog", ("blog.example",), Code("d"), "config.settings", database=Database("sqlite"))
ENV: dict[str, Value] = {"PLAIN": "it's", "OURS": Secret(DIFFICULT), "HOSTS": HostSecret("KEY")}
REF: dict[str, Value] = {"app.domain": "blog.example", "broker.url": Joined(("redis://:", HostSecret("KEY"), "@h"))}

Fill = Callable[[str], str | Secret | Joined]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """The content of a file whose template is this text."""
    (tmp_path / "templates").mkdir()
    app = replace(BLOG, files=(ConfigFile("local.py", "local.py.j2"),), env=ENV)

    def filled(text: str) -> str | Secret | Joined:
        (tmp_path / "templates/local.py.j2").write_text(text)
        ((name, content),) = files.contents(app, ENV, REF, renderer(tmp_path))
        assert name == "local.py"
        return content

    return filled


def clear(content: str | Secret | Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file as the host writes it, where the secret KEY is as difficult as can be."""
    monkeypatch.setattr(paths, "SECRETS", tmp_path / "secrets")
    store.write("blog", "KEY", Secret(DIFFICULT))
    carried: ConfigurationFile = decode(json.loads(json.dumps(encode(
        ConfigurationFile(path="/x/local.py", content=content, app="blog")
    ))))  # fmt: skip
    shown = carried.wanted()["content"]
    assert isinstance(shown, Secret | str)
    return shown.reveal() if isinstance(shown, Secret) else shown


def test_what_a_template_is_given(fill: Fill) -> None:
    assert fill("{{ app.name }} {{ ref['app.domain'] }} {{ env.PLAIN }}\n") == "blog blog.example it's\n"
    assert fill("{{ env.PLAIN | json }} {{ ['a', 1, true] | json }} {{ env.PLAIN | python }}") == (
        '"it\'s" ["a", 1, true] "it\'s"'
    )


@pytest.mark.parametrize("name", ["OURS", "HOSTS"])
def test_difficult_secrets_arrive(fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def written(text: str) -> str:
        content = fill(text)
        assert not isinstance(content, str) and str(content) == "(secret)"
        return clear(content, tmp_path, monkeypatch)

    assert written(f"a {{{{ env.{name} }}}} b") == f"a {DIFFICULT} b"
    assert json.loads(written(f"{{{{ env.{name} | json }}}}")) == DIFFICULT
    assert "\x7f" not in written(f"{{{{ env.{name} | json }}}}"), "which YAML refuses"
    assert ast.literal_eval(written(f"{{{{ env.{name} | python }}}}")) == DIFFICULT
    assert unquote(written(f"{{{{ env.{name} | urlencode }}}}")) == DIFFICULT
    everything = {"PLAIN": "it's", "OURS": DIFFICULT, "HOSTS": DIFFICULT}
    assert json.loads(written("{{ env | json }}")) == everything
    assert ast.literal_eval(written("{{ [env, 1] | python }}")) == [everything, 1]


def test_a_url_with_a_secret_in_it_is_quoted_as_a_whole(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clear(fill("{{ ref['broker.url'] }}"), tmp_path, monkeypatch) == f"redis://:{DIFFICULT}@h"
    text = clear(fill("X = {{ ref['broker.url'] | python }}"), tmp_path, monkeypatch)
    assert ast.literal_eval(text.removeprefix("X = ")) == f"redis://:{DIFFICULT}@h"


@pytest.mark.parametrize(
    "what", ["upper", "string | list | join('-')", "string | truncate(5, true, '')", "string | reverse"]
)
def test_a_secret_cannot_be_changed(fill: Fill, what: str) -> None:
    with pytest.raises(Failed, match="changes a secret") as caught:
        fill(f"{{{{ env.HOSTS | {what} }}}}")
    assert "json, python or urlencode" in caught.value.todo


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n{{ env.MISSING }}", "no attribute 'MISSING'"),
        ("a\n{{ env.MISSING | python }}", "no attribute 'MISSING'"),
        ("a\n{{ env.MISSING | json }}", "no attribute 'MISSING'"),
        ("a\n{{ app.env.OURS }}", "no attribute 'OURS'"),
        ("a\n{% if env.HOSTS == 'x' %}{% endif %}", "cannot be compared"),
        ("a\n{{ env.HOSTS[:2] }}", "not subscriptable"),
        ("a\n{{ 1 / 0 }}", "ZeroDivisionError"),
        ("a\n{{ }", "the template is wrong"),
    ],
)
def test_mistakes_name_file_and_line(fill: Fill, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DeploykitError, match=words) as caught:
        fill(text)
    assert caught.value.where == f"{tmp_path}/templates/local.py.j2:2"
    assert DIFFICULT not in str(caught.value)


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    app = replace(BLOG, files=(ConfigFile("a", "blog/none.j2"),))
    with pytest.raises(DeploykitError, match=r"no template blog/none\.j2") as caught:
        list(files.contents(app, {}, {}, renderer(tmp_path)))
    assert caught.value.where == str(tmp_path / "templates")


def test_a_plan_shows_a_diff_without_secrets_only(tmp_path: Path) -> None:
    place = tmp_path / "site.conf"
    place.write_text("colour = green\n")
    change = examine(ConfigurationFile(path=str(place), content="colour = blue\n", app="root"))
    assert change is not None and "+colour = blue" in change.differences[0].text
    place.write_text("colour = green\n")
    change = examine(ConfigurationFile(path=str(place), content=Secret("colour = blue\n"), app="root"))
    assert change is not None and "blue" not in json.dumps(change.plain())


def test_quoting_knows_three_ways() -> None:
    assert [quote(how, 'a"b\n') for how in ("json", "python", "url")] == ['"a\\"b\\n"', "'a\"b\\n'", "a%22b%0A"]
    with pytest.raises(ValueError, match="yaml"):
        quote("yaml", "")


# -- what of an app makes a release -----------------------------------------------------------------------------------


def deployment(app: App, tmp_path: Path) -> recipe.Deployment:
    (tmp_path / "templates").mkdir(exist_ok=True)
    return recipe.deployment(app, BOOKWORM, renderer(tmp_path), 2)


def hooked(*hooks: tuple[str, str], env: dict[str, Value] | None = None) -> App:
    return replace(BLOG, build=Build(hooks), env=env or {})


def test_hooks_name_a_release(tmp_path: Path) -> None:
    def name(app: App) -> str:
        return deployment(app, tmp_path).release

    builds, migrates = hooked(("after_install", "x")), hooked(("after_migrate", "x"))
    names = [name(each) for each in (BLOG, builds, migrates, hooked(("after_install", "y")))]
    assert len(set(names)) == 4 and name(builds) == names[1]
    # What a build reads is the environment; a migration has no trace in the release.
    assert name(hooked(("after_install", "x"), env={"A": "1"})) != name(builds)
    assert name(hooked(("after_migrate", "x"), env={"A": "1"})) == name(migrates)
    assert name(hooked(("after_install", "x"), env={"A": HostSecret("A")})) == name(builds)
    assert name(replace(BLOG, env={"A": "1"})) == names[0], "no build of the user's, no other release"


def test_configuration_files_name_a_release_and_secrets_do_not(tmp_path: Path) -> None:
    app = replace(BLOG, files=(ConfigFile("a.py", "a.py.j2", pythonpath=True),), env={"S": Secret("one")})
    (tmp_path / "templates").mkdir()
    template = tmp_path / "templates/a.py.j2"
    template.write_text("A = 1\nS = {{ env.S | python }}\nF = {{ ref['static.root'] | python }}\n")
    first = deployment(app, tmp_path)
    assert deployment(app, tmp_path) == first, "marks are gone from what was made"
    again = deployment(replace(app, env={"S": Secret("two")}), tmp_path)
    assert again.release == first.release and again.slot_a != first.slot_a
    template.write_text("A = 2\n")
    assert deployment(app, tmp_path).release != first.release


def test_configuration_files_are_a_slots_own(tmp_path: Path) -> None:
    app = replace(
        hooked(("after_install", "cat ${files.dir}/a.py"), env={"D": "${files.dir}", "PYTHONPATH": "src"}),
        files=(ConfigFile("a.py", "a.py.j2", pythonpath=True),),
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/a.py.j2").write_text("D = {{ env.D | python }} # {{ ref['files.dir'] }}")
    made = deployment(app, tmp_path)
    for slot in "ab":
        folder = f"/etc/deploykit/blog.{slot}.d"
        found: dict[str, Resource] = {each.key: each for each in made.files(slot)}
        assert found[f"directory {folder}"].wanted() == {"owner": "root", "group": "blog", "mode": "0750"}
        file = found[f"configuration file {folder}/a.py"]
        assert file.wanted() == {
            "content": f"D = '{folder}' # {folder}", "owner": "root", "group": "blog", "mode": "0640",
        }  # fmt: skip
        env = dict(recipe.environment(app, "r", slot, "/v"))
        assert env["PYTHONPATH"] == f"{folder}:src"
        ((_, command),) = made.build.hooks
        assert made.command(command, slot) == f"cat {folder}/a.py"


def test_a_secret_in_a_hook_is_refused(tmp_path: Path) -> None:
    app = replace(
        hooked(("after_install", "psql ${database.url}")), database=Database("url", url=Secret("postgres://u:p@h/d"))
    )
    with pytest.raises(Failed, match="after_install of app blog has a secret"):
        deployment(app, tmp_path)


# -- what persists, and what nginx serves ------------------------------------------------------------------------------


def test_the_places_of_what_persists() -> None:
    app = replace(
        BLOG,
        build=Build(persist=("a/b/up/", "a/priv/", "conf/local.json")),
        site=Site((Location("/up/", ("a/b/up/public",)), Location("/f/", ("front/dist/x", "front/dist")))),
    )
    top = "/srv/blog/persist"
    found = {each.key: tuple(each.wanted().values()) for each in build.persistent(app, "www-data")}
    assert found == {
        f"directory {top}": ("root", "root", "0711"),
        f"directory {top}/a": ("root", "root", "0711"),
        f"directory {top}/a/b": ("root", "root", "0711"),
        f"directory {top}/a/b/up": ("blog", "www-data", "2750"),
        f"directory {top}/a/priv": ("blog", "blog", "0750"),
        f"directory {top}/conf": ("blog", "root", "0711"),
    }
    assert list(found) == sorted(found), "a folder before what is in it"
    assert not any(each.removable for each in build.persistent(app, "www-data"))
    assert build.public(app) == ("front/dist",), "what is in another one is there with it; what persists is no copy"


def test_without_any_of_it_nothing_is_made() -> None:
    assert build.public(BLOG) == () and list(build.persistent(BLOG, "www-data")) == []
    assert Host("web1", apps=(BLOG,)).apps[0].build == Build()
