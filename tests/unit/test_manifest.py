"""A configuration and recipes make a manifest: pure, and the project's own recipes and templates come first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit import manifest
from deploykit.agent.deployment import Deployment
from deploykit.agent.envfile import EnvFile
from deploykit.agent.resource import Action, HostSecret, Resource, Secret, decode, encode
from deploykit.agent.resources import File
from deploykit.agent.values import App, Code, Database, Facts, Host, Redis
from deploykit.errors import DeploykitError

BOOKWORM = Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11.2")
MEMORIES = App(
    "memories",
    ("memories.example",),
    Code("d" * 64),
    "config.settings",
    database=Database(name="memories"),
    redis=Redis(),
    env={"TOKEN": Secret("hush-hush"), "KEY": HostSecret("KEY", make=20), "PLAIN": "a 'b' $c"},
)
READER = App("reader", ("reader.example",), Code("e" * 64), "config.settings", database=Database("sqlite"))
WEB1 = Host("web1", apps=(MEMORIES, READER))


@pytest.fixture(autouse=True)
def fresh_imports() -> Iterator[None]:
    """Each test's project is the only one whose recipes this process has seen."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "recipes":
            del sys.modules[name]


def project(folder: Path, **files: str) -> Path:
    """A project's folder with recipes and templates in it; `recipes__nginx_py` is recipes/nginx.py."""
    for name, text in files.items():
        *folders, stem, suffix = name.split("__")
        place = folder.joinpath(*folders, f"{stem}.{suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def test_built_without_a_host(tmp_path: Path) -> None:
    made = manifest.build(WEB1, BOOKWORM, tmp_path)
    keys = [each.key for each in made.resources]
    assert len(keys) == len(set(keys)) > 40
    assert [each.app for each in made.deployments] == ["memories", "reader"]
    assert "package nginx" in keys and "postgres database memories" in keys and "postgres database reader" not in keys
    # The order that a recipe yields is the order: what holds an app is there before what needs it.
    assert keys.index("user memories") < keys.index("directory /srv/memories/home")
    assert list(tmp_path.iterdir()) == []


def test_its_text_is_stable_and_tells_everything(tmp_path: Path) -> None:
    first = manifest.build(WEB1, BOOKWORM, tmp_path)
    assert first.text == manifest.build(WEB1, BOOKWORM, tmp_path).text
    others = (
        replace(MEMORIES, env={**MEMORIES.env, "TOKEN": Secret("another")}),
        replace(MEMORIES, domains=("other.example",)),
        replace(MEMORIES, code=Code("f" * 64)),
    )
    texts = {manifest.build(replace(WEB1, apps=(app, READER)), BOOKWORM, tmp_path).text for app in others}
    assert len(texts | {first.text}) == 4
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_manifest as t;"
        "print(t.manifest.build(t.WEB1, t.BOOKWORM, Path(sys.argv[1])).text)"
    )
    for seed in ("0", "1"):  # another process, other hashes of text: nothing depends on the order of a set
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.rstrip("\n") == first.text, done.stderr


def test_every_resource_survives_the_way_to_the_host(tmp_path: Path) -> None:
    made = manifest.build(WEB1, BOOKWORM, tmp_path)
    everything = (*made.resources, *made.deployments)
    assert decode(json.loads(json.dumps(made.data["resources"]))) == made.resources
    assert decode(json.loads(json.dumps(made.data["deployments"]))) == made.deployments
    kinds = {type(each).__name__ for each in everything}
    assert kinds >= {
        *("Package", "Directory", "File", "Link", "Absent", "User", "Service", "Uv", "Deployment"),
        *("Role", "Database"),
    }
    for each in everything:
        back = decode(json.loads(json.dumps(encode(each))))
        assert back == each and type(back) is type(each) and hash(back) == hash(each)


def test_nested_values_survive() -> None:
    reload = Action("reload nginx", (("systemctl", "reload", "nginx"), ("true",)), check=("nginx", "-t"))
    file = File("/etc/x", Secret("hush"), actions=(reload, Action("again", ())), app="blog")
    back = decode(json.loads(json.dumps(encode(file))))
    assert back == file and back.actions[0].commands[0] == ("systemctl", "reload", "nginx")
    assert isinstance(back.content, Secret) and back.content.reveal() == "hush"
    env = EnvFile(path="/etc/e", variables=(("A", "1"), ("B", Secret("x")), ("C", HostSecret("C", make=9))), app="blog")
    assert decode(encode(env)) == env and decode(encode(env)).variables[2][1].make == 9


def test_what_is_no_value_cannot_travel() -> None:
    with pytest.raises(TypeError, match="cannot hold PosixPath"):
        encode(File("/etc/x", Path("/etc/y")))  # type: ignore[arg-type]


def test_the_deployment_carries_the_environment(tmp_path: Path) -> None:
    made = manifest.build(WEB1, BOOKWORM, tmp_path)
    deployment = made.deployments[0]
    assert isinstance(deployment, Deployment)
    (env,) = [each for each in deployment.slot_a if isinstance(each, EnvFile)]
    variables = dict(env.variables)
    assert variables["TOKEN"] == Secret("hush-hush") and variables["PLAIN"] == "a 'b' $c"
    assert variables["SECRET_KEY"] == HostSecret("SECRET_KEY", make=50)
    assert "hush-hush" not in repr(made)


CLASH = """
from deploykit.agent.resources import File
def recipe(host, facts, render):
    yield File("/etc/nginx/conf.d/deploykit.conf", "mine")
"""


def test_two_recipes_that_disagree(tmp_path: Path) -> None:
    project(tmp_path, recipes__clash__py=CLASH)
    with pytest.raises(DeploykitError) as caught:
        manifest.build(replace(WEB1, recipes=("clash",)), BOOKWORM, tmp_path)
    text = str(caught.value)
    assert "file /etc/nginx/conf.d/deploykit.conf" in text and "nginx and clash" in text and "must let go" in text


AGREE = """
from deploykit.agent.resource import Action
from deploykit.agent.resources import Package, File
def recipe(host, facts, render):
    yield Package("nginx", actions=(Action("tell", (("true",),)),))
    yield File("/etc/own.conf", "x")
"""


def test_two_recipes_that_agree_share_one_resource(tmp_path: Path) -> None:
    project(tmp_path, recipes__agree__py=AGREE)
    made = manifest.build(replace(WEB1, recipes=("agree",)), BOOKWORM, tmp_path)
    (nginx,) = [each for each in made.resources if each.key == "package nginx"]
    assert [action.name for action in nginx.actions] == ["tell"]
    assert "file /etc/own.conf" in {each.key for each in made.resources}


EXTENDED = """
from collections.abc import Iterator
from deploykit.agent.resources import File
from deploykit.recipes import nginx as ours
def recipe(host, facts, render):
    yield from ours.recipe(host, facts, render)
    yield File("/etc/nginx/conf.d/mine.conf", render("mine.conf.j2", name=host.name), actions=(ours.RELOAD,))
"""


def test_a_projects_recipe_is_found_before_ours_and_extends_it(tmp_path: Path) -> None:
    project(tmp_path, recipes__nginx__py=EXTENDED, **{"templates__mine.conf__j2": "# of {{ name }}\n"})
    found = {each.key: each for each in manifest.build(WEB1, BOOKWORM, tmp_path).resources}
    mine = found["file /etc/nginx/conf.d/mine.conf"]
    assert isinstance(mine, File) and mine.content == "# of web1\n" and mine.actions[0].name == "reload nginx"
    assert "file /etc/nginx/sites-available/memories.conf" in found


def test_a_projects_template_is_found_before_ours_and_extends_it(tmp_path: Path) -> None:
    plain = {each.key: each for each in manifest.build(WEB1, BOOKWORM, tmp_path).resources}
    text = '# mine\n{% include "deploykit/nginx/snippets/proxy.conf.j2" %}'
    project(tmp_path, **{"templates__nginx__snippets__proxy.conf__j2": text})
    found = {each.key: each for each in manifest.build(WEB1, BOOKWORM, tmp_path).resources}
    changed = [key for key in plain if plain[key] != found[key]]
    assert changed == ["file /etc/nginx/snippets/deploykit-proxy.conf"]
    before, after = plain[changed[0]], found[changed[0]]
    assert isinstance(before, File) and isinstance(after, File)
    assert after.content == f"# mine\n{before.content}"


def test_projects_of_one_process_do_not_mix(tmp_path: Path) -> None:
    keys = []
    for name in ("one", "two"):
        recipe = AGREE.replace("/etc/own.conf", f"/etc/{name}.conf")
        folder = project(tmp_path / name, recipes__agree__py=recipe)
        made = manifest.build(replace(WEB1, recipes=("agree",)), BOOKWORM, folder)
        keys.append([each.key for each in made.resources if each.key in ("file /etc/one.conf", "file /etc/two.conf")])
    assert keys == [["file /etc/one.conf"], ["file /etc/two.conf"]]


@pytest.mark.parametrize(
    ("files", "recipes", "words"),
    [
        ({}, ("nowhere",), ("no recipe nowhere", "[hosts.web1] recipes", "def recipe(host, facts, render)")),
        ({"recipes__odd__py": "x = 1"}, ("odd",), ("odd.py", "no function recipe")),
        ({"recipes__odd__py": "import nothing_of_the_kind"}, ("odd",), ("odd.py", "nothing_of_the_kind")),
        (
            {"templates__nginx__snippets__proxy.conf__j2": "{{ missing }}"},
            (),
            ("nginx/snippets/proxy.conf.j2", "'missing' is undefined"),
        ),
        (
            {"templates__nginx__snippets__proxy.conf__j2": "a\n{% if %}"},
            (),
            ("nginx/snippets/proxy.conf.j2:2", "template is wrong"),
        ),
    ],
)
def test_mistakes_of_a_project_say_where(
    tmp_path: Path, files: dict[str, str], recipes: tuple[str, ...], words: tuple[str, ...]
) -> None:
    project(tmp_path, **files)
    with pytest.raises(DeploykitError) as caught:
        manifest.build(replace(WEB1, recipes=recipes), BOOKWORM, tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_an_unsupported_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploykitError) as caught:
        manifest.build(WEB1, replace(BOOKWORM, system="fedora", version="41"), tmp_path)
    assert "host web1" in str(caught.value) and "Fedora 41" in str(caught.value)
    assert "Supported are Ubuntu 22.04" in str(caught.value)


def test_keys_are_unique_per_kind(tmp_path: Path) -> None:
    made = manifest.build(WEB1, BOOKWORM, tmp_path)
    assert all(isinstance(each, Resource) and each.key.strip() == each.key for each in made.resources)
