"""Root's names of an app's sockets, in the files of this machine: none comes from what is found on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.agent import paths, slots
from deploykit.agent.deployment import Deployment, Health, Venv, boot_text, live
from deploykit.agent.resource import Failed
from deploykit.model import layout
from deploykit.recipes.sockets import Moved


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    layout.run("blog").mkdir(parents=True)
    layout.sockets("blog").mkdir(parents=True)
    layout.releases("blog").mkdir(parents=True)
    layout.etc().mkdir(parents=True)
    return tmp_path


def remember(**state: object) -> None:
    paths.write_json(paths.APPS / "blog.json", {"live": "a", "slots": {"a": "r1", "b": "r2"}, "releases": [], **state})


@pytest.mark.parametrize("name", ["x\nz %S 0777 root root\n#", "x y", "%h", "../x", "X", "1x", ""])
def test_a_name_that_means_more_than_itself_is_refused(name: str) -> None:
    with pytest.raises(Failed, match="is no name of a socket"):
        boot_text("blog", "a", [name])


def test_the_names_of_sockets_are_those_of_the_record(root: Path) -> None:
    remember(sockets={"a": [], "b": ["api"]})
    for folder in (layout.sockets("blog"), layout.run("blog")):
        (folder / "b.x\nz %S 0777 root root\n#.sock").touch()
        (folder / "live.old.sock").mkdir()
        (folder / "live.old.sock/deep").touch()
    slots.switch("blog", "r2", "b")
    folder = layout.sockets("blog")
    lines = layout.boot("blog").read_text().splitlines()[1:]
    assert lines == [
        f"L+ {folder}/live.sock - - - - b.sock",
        f"L+ {folder}/live.api.sock - - - - b.api.sock",
    ]
    assert os.readlink(folder / "live.sock") == "b.sock" and os.readlink(folder / "live.api.sock") == "b.api.sock"
    assert not (folder / "live.old.sock").exists()
    assert live("blog") == "b"


def test_a_link_of_the_apps_own_says_nothing(root: Path) -> None:
    remember(sockets={"a": [], "b": []})
    (layout.run("blog") / "live.sock").symlink_to("b.sock")
    assert live("blog") == "a"


def test_what_was_started_by_an_earlier_version_is_reached_where_it_is(root: Path) -> None:
    remember(slots={"a": "r1"})
    links = Moved(names=("", "api"), app="blog")
    assert links.observe() == {"reached": False}
    links.change(links.observe())
    assert links.observe() == links.wanted()
    assert os.readlink(layout.socket("blog", "live")) == f"{root}/run/blog/a.sock"
    assert os.readlink(layout.socket("blog", "live", "api")) == f"{root}/run/blog/a.api.sock"
    assert slots.sockets_of("blog", "a") == [root / "run/blog/a.sock", root / "run/blog/a.api.sock"]
    remember(slots={"a": "r1", "b": "r2"}, sockets={"b": []})
    slots.switch("blog", "r2", "b")
    assert os.readlink(layout.socket("blog", "live")) == "b.sock"
    assert links.observe() == links.wanted()
    slots.switch("blog", "r1", "a")  # and back, when the new one is no good
    assert os.readlink(layout.socket("blog", "live")) == f"{root}/run/blog/a.sock"
    assert f" {root}/run/blog/a.sock\n" in layout.boot("blog").read_text()


def test_nothing_of_the_kind_is_made_for_a_new_app(root: Path) -> None:
    links = Moved(names=("", "api"), app="blog")
    assert links.observe() == links.wanted()
    remember(sockets={"a": []})
    assert links.observe() == links.wanted()


def test_a_release_of_an_earlier_version_is_not_waited_for(root: Path) -> None:
    layout.supervisor("blog", "b").parent.mkdir(parents=True)
    layout.supervisor("blog", "b").write_text("[program:blog-b]\ncommand=/bin/sh /etc/deploykit/blog.b.run web\n")
    deployment = Deployment(
        app="blog",
        release="r2",
        tree="",
        label="",
        root="",
        venv=Venv("k", "/uv", (), "3.12", "none", (), ()),
        slot_a=(),
        slot_b=(),
        health=Health("/", "blog.example", "http", strict=False, proxy=True),
        database="none",
        database_name="",
        keep=5,
    )
    with pytest.raises(Failed, match="was made by an earlier version"):
        slots.start(deployment, "b")
