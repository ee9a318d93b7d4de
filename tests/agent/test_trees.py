"""Trees that go from an app's hands into root's, and what is copied out of them for nginx: hostile apps included."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploykit.agent import trees, virtualenv
from deploykit.agent.resource import Failed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sets owners: needs root")

APP, OTHER, WWW = 65533, 65532, 33


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A tree that an app has built in."""
    top = tmp_path / "release/code"
    for path in ("dist/js/app.js", "dist/js/new/x.js", "tiny/made.py", "node_modules/p/i.js", "tiny/__pycache__/m.pyc"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path)
    (top / "run.sh").touch(mode=0o777)
    trees.give(top, APP, APP)
    return top


def look(path: Path) -> tuple[int, int, str]:
    found = path.lstat()
    return found.st_uid, found.st_gid, oct(stat.S_IMODE(found.st_mode))


def test_what_the_app_built_becomes_roots(code: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("not yours")
    os.chown(outside, OTHER, OTHER)
    (code / "tiny/out").symlink_to(outside)
    (code / "tiny/file").symlink_to(outside / "file")
    os.mkfifo(code / "pipe")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(code / "socket"))
    (code / "run.sh").chmod(0o6777)
    (code / "dist").chmod(0)
    trees.give(code, APP, APP)
    trees.take(code, APP, 0, APP)
    assert look(code) == look(code / "dist") == (0, APP, "0o750")
    assert look(code / "run.sh") == (0, APP, "0o750"), "no set-id bit"
    assert look(code / "tiny/made.py") == (0, APP, "0o640")
    assert look(code / "tiny/out")[:2] == (0, APP)
    assert look(outside) == (OTHER, OTHER, "0o755") and look(outside / "file")[:2] == (0, 0), "no link was followed"
    assert not (code / "pipe").exists() and not (code / "socket").exists()


def test_somebody_elses_file_is_not_taken(code: Path, tmp_path: Path) -> None:
    """With fs.protected_hardlinks off, an app could link it there."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    os.link(secret, code / "tiny/mine")
    with pytest.raises(Failed, match="tiny/mine is of user 0"):
        trees.take(code, APP, 0, APP)
    assert look(secret) == (0, 0, "0o600")


def test_static_files_stay_the_apps_and_are_handed_on_to_nginx(code: Path) -> None:
    trees.take(code, APP, APP, WWW, folders=0o2750)
    assert look(code / "dist/js") == (APP, WWW, "0o2750") and look(code / "dist/js/app.js") == (APP, WWW, "0o640")


def test_seals_are_of_what_runs(code: Path) -> None:
    (code / "tiny/link").symlink_to("made.py")
    (code / "kept").symlink_to("/etc")
    found = {path: (size, changed) for path, size, changed in trees.seals(code)}
    assert set(found) == {"dist/js/app.js", "dist/js/new/x.js", "tiny/made.py", "run.sh"}
    status = (code / "tiny/made.py").stat()
    assert found["tiny/made.py"] == (status.st_size, status.st_mtime_ns)


def test_publishing(code: Path, tmp_path: Path) -> None:
    public, home = tmp_path / "release/public", tmp_path
    (code / "dist/latest.js").symlink_to("js/app.js")
    (code / "dist/made.txt").symlink_to("../tiny/made.py")
    (tmp_path / "kept").mkdir()
    (code / "dist/kept").symlink_to(tmp_path / "kept")
    trees.publish(code, "dist/js", public, WWW, home)
    assert look(public) == look(public / "dist") == look(public / "dist/js/new") == (0, WWW, "0o750")
    assert look(public / "dist/js/app.js") == (0, WWW, "0o640")
    trees.publish(code, "dist", tmp_path / "release/all", WWW, home)
    found = tmp_path / "release/all/dist"
    assert os.readlink(found / "latest.js") == "js/app.js"
    assert not (found / "made.txt").is_symlink() and (found / "made.txt").read_text() == "tiny/made.py"
    assert not os.path.lexists(found / "kept"), "what persists has a place of its own"


@pytest.mark.parametrize("target", ["/etc/shadow", "/etc", "../../../outside", "../tiny"])
def test_a_link_that_leads_out_is_not_published(code: Path, tmp_path: Path, target: str) -> None:
    (code / "dist/link").symlink_to(target)
    with pytest.raises(Failed, match="dist/link is a link that leads out"):
        trees.publish(code, "dist", tmp_path / "public", WWW, code / "nowhere")


def test_a_folder_that_is_not_there_is_told(code: Path, tmp_path: Path) -> None:
    (code / "gone").symlink_to("/etc")
    with pytest.raises(Failed, match="the folder build, which nginx is to serve, is not there"):
        trees.publish(code, "build", tmp_path / "public", WWW, tmp_path)
    with pytest.raises(Failed, match="gone is a link that leads out"):
        trees.publish(code, "gone", tmp_path / "public", WWW, tmp_path)


#: Puts a link to the folder $2 in the place of $1 as soon as it may, and has one of the files in it.
SWAP = """
import os, sys
inner, outside, first = sys.argv[1:]
os.setresgid(65533, 65533, 65533)
os.setresuid(65533, 65533, 65533)
print("ready", flush=True)
while os.stat(f"{inner}/{first}").st_uid == 0:
    pass
while True:
    try:
        os.rename(inner, f"{inner}.aside")
        break
    except PermissionError:
        pass
os.symlink(outside, inner)
"""


def test_what_is_given_leads_nowhere_meanwhile() -> None:
    """The app has a part of the tree already while root goes on with the rest."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        top = Path(place)
        top.chmod(0o755)
        inner, outside = top / "code/inner", top / "outside"
        for folder in (inner, outside):
            folder.mkdir(parents=True)
            for number in range(5000):
                (folder / str(number)).touch()
        first = next(os.scandir(inner)).name
        with subprocess.Popen([sys.executable, "-c", SWAP, inner, outside, first], stdout=subprocess.PIPE) as swap:
            try:
                assert swap.stdout is not None and swap.stdout.readline() == b"ready\n"
                trees.give(top / "code", APP, APP)
                assert swap.wait(60) == 0
            finally:
                swap.kill()
        assert {each.stat().st_uid for each in outside.iterdir()} == {0}


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    trees.remove(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    trees.remove(tmp_path / "gone")
    trees.remove(tmp_path / "gone")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    trees.remove(tmp_path / "link")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept/file").exists()


def test_a_tree_without_end_is_not_taken(code: Path) -> None:
    place = code
    for _ in range(300):
        place /= "d"
        place.mkdir()
    trees.give(code, APP, APP)
    with pytest.raises(Failed, match="more than 200 folders deep"):
        trees.take(code, APP, 0, APP)


def test_links_in_a_circle_are_published_as_they_are(code: Path, tmp_path: Path) -> None:
    (code / "dist/loop").symlink_to("loop")
    trees.publish(code, "dist", tmp_path / "public", WWW, code / "nowhere")
    assert os.readlink(tmp_path / "public/dist/loop") == "loop"
    with pytest.raises(Failed, match="the folder dist/loop, which nginx is to serve, is not there"):
        trees.publish(code, "dist/loop", tmp_path / "more", WWW, code / "nowhere")


def test_what_is_compiled_is_no_links_target(tmp_path: Path) -> None:
    top = tmp_path / "code"
    for path in ("a/one.py", "two.py", "node_modules/three.py"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("x = 1\n")
    (tmp_path / "secret").write_text("key = 'sesame'\n")
    (top / "linked.py").symlink_to(tmp_path / "secret")
    subprocess.run([sys.executable, "-IS", "-c", virtualenv.COMPILE, top, "2"], check=True)
    assert sorted(each.name.partition(".")[0] for each in top.rglob("*.pyc")) == ["one", "two"]
