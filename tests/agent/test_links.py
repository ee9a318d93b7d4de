"""Configuration files at a fixed place of a release: what they replace, and that a build leaves them alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.agent import links
from deploykit.agent.deployment import misled
from deploykit.agent.resource import Failed

LINKS = (("conf/local.py", "local.py"), ("top.json", "x.json"))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The code of a release, with the files of its slot beside it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/local.py").write_text("rendered")
    (tmp_path / "release/code/conf").mkdir(parents=True)
    (tmp_path / "release/files").symlink_to(tmp_path / "etc")
    return tmp_path / "release/code"


def put(code: Path) -> None:
    for path, name in LINKS:
        links.room(code, path, name, "blog")
        (code / path).parent.mkdir(exist_ok=True)
        (code / path).symlink_to(links.target(path, name))


def test_it_leads_to_the_files_of_the_slot(code: Path) -> None:
    put(code)
    assert (code / "conf/local.py").read_text() == "rendered"
    assert links.seal(code, LINKS, "blog") == [
        ["conf/local.py", "../../files/local.py"],
        ["top.json", "../files/x.json"],
    ]
    code.parent.rename(code.parent.with_name("aside"))
    assert (code.parent.with_name("aside") / "code/conf/local.py").read_text() == "rendered", "wherever the release is"


@pytest.mark.parametrize("link", [False, True])
def test_what_the_source_has_there_is_replaced(code: Path, link: bool) -> None:
    (code / "real.py").write_text("of the source")
    place = code / "conf/local.py"
    if link:
        place.symlink_to("../real.py")
    else:
        os.link(code / "real.py", place)  # as files that did not change are shared by releases
    put(code)
    assert place.read_text() == "rendered" and (code / "real.py").read_text() == "of the source"


def test_folders_and_what_leads_elsewhere_are_refused(code: Path) -> None:
    (code / "conf/local.py").mkdir()
    with pytest.raises(Failed, match=r"conf/local\.py is a folder in the source") as caught:
        put(code)
    assert '[apps.blog.files] "local.py"' in caught.value.todo
    (code / "conf/local.py").rmdir()
    (code / "conf").rmdir()
    (code / "conf").write_text("a file")
    with pytest.raises(Failed, match="conf is a file in the source"):
        put(code)
    (code / "conf").unlink()
    (code / "elsewhere").mkdir()
    (code / "conf").symlink_to("elsewhere")
    with pytest.raises(Failed, match=r"conf/local\.py is below a link of the source"):
        put(code)


def test_what_a_build_does_to_it_is_noticed(code: Path) -> None:
    put(code)
    (code / "conf/local.py").unlink()
    (code / "conf/local.py").write_text("of the build")
    with pytest.raises(Failed, match=r"something else .* conf/local\.py") as caught:
        links.seal(code, LINKS, "blog")
    assert "live release is untouched" in caught.value.todo


def test_nothing_compiled_of_it_stays_in_the_release(code: Path) -> None:
    """It would keep secrets longer than the file does."""
    put(code)
    cache = code / "conf/__pycache__"
    cache.mkdir()
    for name in ("local.cpython-311.pyc", "locale.cpython-311.pyc"):
        (cache / name).write_text("")
    links.seal(code, LINKS, "blog")
    assert [each.name for each in cache.iterdir()] == ["locale.cpython-311.pyc"]


def test_an_altered_one_is_seen(code: Path) -> None:
    put(code)
    kept = links.seal(code, LINKS, "blog")
    assert misled(str(code), kept) == ""
    (code / "top.json").unlink()
    assert misled(str(code), kept) == "top.json is missing"
    (code / "top.json").symlink_to("/etc/passwd")
    assert misled(str(code), kept) == "top.json was altered on the host"
