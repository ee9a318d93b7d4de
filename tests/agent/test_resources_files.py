"""Files, folders and links on this machine's own disk: made, looked at, altered by hand, mended, removed."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from deploykit.agent.resource import Failed, Resource, decode, encode
from deploykit.agent.resources import Absent, Directory, File, Link
from deploykit.agent.secret import Secret

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sets owners: needs root")

NOBODY = 65534


def converge(resource: Resource) -> None:
    """Made, as wanted, and still as wanted when made again; unharmed by its way through the manifest."""
    assert decode(encode(resource)) == resource
    for _ in range(2):
        resource.change(resource.observe())
        assert resource.observe() == resource.wanted()


def differs(resource: Resource) -> set[str]:
    observed = resource.observe()
    assert observed is not None
    wanted = resource.wanted()
    return {name for name in wanted if observed[name] != wanted[name]}


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "app.conf"
    file = File(str(path), "grüße\n", owner="nobody", group="nogroup", mode=0o640)
    assert file.observe() is None
    converge(file)
    assert path.read_text() == "grüße\n"
    assert path.stat().st_uid == NOBODY

    path.write_text("by hand")
    assert differs(file) == {"content"}
    path.chmod(0o777)
    os.chown(path, 0, 0)
    assert differs(file) == {"content", "mode", "owner", "group"}
    converge(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["app.conf"], "a temporary file was left"

    file.remove()
    file.remove()
    assert file.observe() is None


def test_file_keeps_special_bits(tmp_path: Path) -> None:
    converge(File(str(tmp_path / "f"), "", owner="nobody", mode=0o2750))


def test_a_secret_is_compared_but_never_shown(tmp_path: Path) -> None:
    file = File(str(tmp_path / "env"), Secret("KEY=hunter2"), mode=0o640)
    converge(file)
    (tmp_path / "env").write_text("KEY=other")
    observed = file.observe()
    assert differs(file) == {"content"}
    assert "other" not in str(observed) and "hunter2" not in repr(file)


def test_the_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=f"its folder {tmp_path}/no/where does not exist"):
        File(f"{tmp_path}/no/where/f", "").change(None)
    with pytest.raises(Failed, match="does not exist"):
        Directory(f"{tmp_path}/no/where").change(None)
    File(f"{tmp_path}/no/where/f", "").remove()
    Directory(f"{tmp_path}/no/where").remove()


def test_an_owner_who_is_nobody_yet(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("")
    file = File(str(path), "", owner="nobody-has-this-name")
    observed = file.observe()
    assert observed is not None and observed["owner"] == "root"
    os.chown(path, 54321, 54321)
    observed = file.observe()
    assert observed is not None and (observed["owner"], observed["group"]) == ("54321", "54321")
    with pytest.raises(Failed, match="no user nobody-has-this-name"):
        file.change(observed)


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path = tmp_path / "f"
    path.symlink_to(precious)
    file = File(str(path), "ours")
    assert file.observe() is not None and differs(file) >= {"content"}
    converge(file)
    assert not path.is_symlink()
    assert precious.read_text() == "precious"

    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere")
    converge(File(str(dangling), "ours"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("depth", ["", "/deeper"])
def test_an_apps_link_on_the_way_is_refused(tmp_path: Path, depth: str) -> None:
    """What an app's user could do to have root write elsewhere."""
    (tmp_path / "etc/deeper").mkdir(parents=True)
    way = tmp_path / "data"
    way.symlink_to(tmp_path / "etc")
    os.chown(way, NOBODY, NOBODY, follow_symlinks=False)
    for resource in (
        File(f"{way}{depth}/f", ""),
        Directory(f"{way}{depth}/d"),
        Link(f"{way}{depth}/l", "/etc/passwd"),
    ):
        with pytest.raises(Failed, match="symbolic link of nobody's"):
            resource.change(None)
    assert sorted(p.name for p in (tmp_path / "etc").rglob("*")) == ["deeper"]


def test_roots_own_links_on_the_way_are_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("../run")
    converge(File(f"{tmp_path}/var/run/f", "x"))
    assert (tmp_path / "run/f").read_text() == "x"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Failed):
        File(f"{tmp_path}/loop/f", "").change(None)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = File(f"{tmp_path}/pipe", "x")
    assert "content" in differs(pipe)  # and did not wait for a writer
    converge(pipe)

    (tmp_path / "folder").mkdir()
    folder = File(f"{tmp_path}/folder", "x")
    assert "content" in differs(folder)
    with pytest.raises(Failed, match="is a folder"):
        folder.change(folder.observe())

    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "content" in differs(File(f"{tmp_path}/binary", "\\xff\\xfe"))
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    assert "content" in differs(File(f"{tmp_path}/huge", "x"))


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a//b", "/a/", "/", "/a/./b"])
def test_strange_paths_are_refused(path: str) -> None:
    with pytest.raises(Failed, match="not a path that can be managed"):
        File(path, "").change(None)


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine may not mount")
    try:
        file = File(f"{mount}/f", "x" * 100_000)
        with pytest.raises(Failed) as failed:
            file.change(None)
        assert "No space left" in failed.value.what and "df -h" in failed.value.todo
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_directory(tmp_path: Path) -> None:
    path = tmp_path / "media"
    directory = Directory(str(path), "nobody", "www-data", 0o2750)
    assert directory.observe() is None
    converge(directory)
    assert stat.S_IMODE(path.stat().st_mode) == 0o2750
    path.chmod(0o777)
    assert differs(directory) == {"mode"}
    converge(directory)

    (path / "photo").write_text("data")
    directory.remove()
    assert (path / "photo").exists(), "a folder with something in it stays"
    (path / "photo").unlink()
    directory.remove()
    directory.remove()
    assert directory.observe() is None


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("")
    for name, words in (("link", "a symbolic link"), ("file", "a file")):
        directory = Directory(f"{tmp_path}/{name}", mode=0o700)
        assert "mode" in differs(directory)
        with pytest.raises(Failed, match=words):
            directory.change(directory.observe())
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o755


def test_link(tmp_path: Path) -> None:
    path = tmp_path / "live"
    link = Link(str(path), "releases/2")
    assert link.observe() is None
    converge(link)
    path.unlink()
    path.symlink_to("releases/1")
    assert differs(link) == {"target"}
    converge(link)
    link.remove()
    link.remove()
    assert link.observe() is None

    path.write_text("somebody's")
    assert differs(link) == {"target"}
    for act in (lambda: link.change(link.observe()), link.remove):
        with pytest.raises(Failed, match="should be a link and is"):
            act()
    assert path.read_text() == "somebody's"


def test_absent(tmp_path: Path) -> None:
    path = tmp_path / "default"
    absent = Absent(str(path))
    assert absent.observe() == absent.wanted()
    path.symlink_to("/etc/passwd")
    assert differs(absent) == {"exists"}
    converge(absent)
    assert os.path.exists("/etc/passwd")
    path.write_text("x")
    converge(absent)
    path.mkdir()
    converge(absent)
    path.mkdir()
    (path / "data").write_text("x")
    with pytest.raises(Failed, match="something is in it"):
        absent.change(absent.observe())
