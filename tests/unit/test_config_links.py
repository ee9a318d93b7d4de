"""`link` of a configuration file: where in the source it may be, and that it is a part of what makes a release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_config_rules import app, only, read
from test_files import BLOG, deployment
from test_localenv import made

from deploykit.agent.resource import decode, encode
from deploykit.agent.values import ConfigFile


def file(link: str, more: str = "") -> str:
    return app(f'{more}[apps.blog.files]\n"local.py" = {{ template = "local.py.j2", link = "{link}" }}\n')


@pytest.mark.parametrize("text", ["config/local.py", "./config//local.py"])
def test_the_file_says_where(text: str) -> None:
    assert read(file(text)).apps[0].files == (ConfigFile("local.py", "local.py.j2", link="config/local.py"),)


@pytest.mark.parametrize(
    ("link", "more", "words"),
    [
        ("../local.py", "", "is not inside the source"),
        ("config/../../local.py", "", "is not inside the source"),
        ("/etc/local.py", "", "is not inside the source"),
        ("~/local.py", "", "is not inside the source"),
        (".", "", "is not inside the source"),
        ("config/", "", "is a folder"),
        ("var/local.py", 'persist = ["var/"]\n', '"var/local.py" is within "var/", which persists'),
        ("var/local.py", 'persist = ["./var//local.py"]\n', '"var/local.py" persists'),
        ("var", 'persist = ["var/local.py"]\n', '"var/local.py" in it persists'),
        ("web/a/local.js", '[apps.blog.nginx.locations]\n"/w/" = { folder = "web" }\n', "nginx serves"),
    ],
)
def test_what_is_refused(link: str, more: str, words: str) -> None:
    found = only(file(link, more))
    assert words in found.what, found
    assert (found.table, found.key) == ("apps.blog", 'files."local.py".link')
    assert found.line == 5 + more.count("\n")


@pytest.mark.parametrize("other", ["config/local.py", "config", "config/local.py/x"])
def test_two_files_cannot_be_in_one_place(other: str) -> None:
    found = only(file("config/local.py") + f'"b.py" = {{ template = "b.j2", link = "{other}" }}\n')
    assert '"local.py"' in found.what and found.line == 6 and found.key == 'files."b.py".link'


def test_a_link_names_a_release(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/a.j2").write_text("A = 1")
    without, linked, elsewhere = (
        deployment(replace(BLOG, files=(ConfigFile("a.py", "a.j2", link=link),)), tmp_path)
        for link in ("", "conf/a.py", "a.py")
    )
    assert len({each.release for each in (without, linked, elsewhere)}) == 3
    assert (without.links, linked.links) == ((), (("conf/a.py", "a.py"),))
    assert decode(encode(linked)) == linked
    assert linked.wanted()["files"] == "blog.a.d" and "files" not in without.wanted()


FILES = (
    '[apps.blog.files]\n"local.py" = { template = "local.py.j2", link = "site1/local.py" }\n'
    '"other.py" = { template = "local.py.j2", link = "site1/settings.py" }\n'
)


def test_your_own_source_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/local.py.j2").write_text("A = 1")
    source = tmp_path / "source"
    (source / "site1").mkdir(parents=True)
    (source / "site1/settings.py").write_text("mine")
    notes = made(tmp_path, FILES, source=source).notes
    assert f"ln -s {tmp_path}/files/local.py {source}/site1/local.py" in notes[0]
    assert notes[1] == "site1/settings.py of your source is used, and not other.py"
    assert not (source / "site1/local.py").is_symlink() and (source / "site1/settings.py").read_text() == "mine"
    (source / "site1/local.py").symlink_to(tmp_path / "files/local.py")
    assert len(made(tmp_path, FILES, source=source).notes) == 1, "as it was told"


def test_a_copy_of_a_repository_has_the_links(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/local.py.j2").write_text("A = 1")
    copy = tmp_path / "code"
    (copy / "site1").mkdir(parents=True)
    (copy / "site1/settings.py").write_text("of the repository")
    for _ in range(2):
        assert made(tmp_path, FILES, source=copy, git="https://example.com/x.git").notes == ()
        assert (copy / "site1/local.py").read_text() == (copy / "site1/settings.py").read_text() == "A = 1"
