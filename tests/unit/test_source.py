"""Sources: folders, git work trees and repositories, read as trees that are named by their contents."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from deploykit import cache as kept
from deploykit import source
from deploykit.config.project import Source
from deploykit.errors import DeploykitError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a git that knows nothing of this machine's user."""
    place = tmp_path / "cache"
    monkeypatch.setattr(kept, "FOLDER", place)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ann")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.org")
    return place


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        place = folder / name.replace("__", "/").replace("_DOT_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    write(folder, manage_DOT_py="print()", blog__models_DOT_py="", _DOT_gitignore="*.log\nlocal/\n")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def tree(folder: Path, *exclude: str) -> source.Tree:
    return source.read(Source(folder=folder), exclude, "blog")


def test_a_folder_without_what_no_release_needs(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", manage_DOT_py="m", blog__views_DOT_py="v", _DOT_env="SECRET=1")
    write(folder, __pycache____x_DOT_pyc="", _DOT_venv__lib="", node_modules__a="", db_DOT_sqlite3="rows", x_DOT_pyc="")
    found = tree(folder)
    assert sorted(found.entries) == ["blog/views.py", "manage.py"]
    assert found.label == "folder"
    assert found.read("manage.py") == b"m"
    assert found.listing()[1] == ("manage.py", found.entries["manage.py"].mode, 1, found.entries["manage.py"].sha)


def test_an_app_without_a_source_has_an_empty_tree() -> None:
    found = source.read(Source(), (), "tickets")
    assert (found.paths, found.listing(), found.label) == ((), [], "packages")


def test_a_work_tree_follows_gits_rules(tmp_path: Path) -> None:
    folder = repository(tmp_path / "app")
    commit = git(folder, "rev-parse", "--short", "HEAD")
    assert tree(folder).label == commit
    write(folder, new_DOT_py="untracked", debug_DOT_log="ignored", local__x="ignored")
    (folder / "blog/models.py").unlink()
    found = tree(folder)
    assert sorted(found.entries) == [".gitignore", "manage.py", "new.py"]
    assert found.label == f"{commit} + changes"
    git(folder, "add", "debug.log", "--force")  # tracked counts, ignored or not
    assert "debug.log" in tree(folder).entries


def test_a_folder_inside_a_work_tree(tmp_path: Path) -> None:
    folder = repository(tmp_path / "app")
    write(folder, site__manage_DOT_py="s", local__app__manage_DOT_py="i")
    assert list(tree(folder / "site").entries) == ["manage.py"]
    # The whole folder is ignored by the work tree around it: then it is a plain folder.
    assert list(tree(folder / "local/app").entries) == ["manage.py"]
    # The work tree's other changes are none of its business.
    git(folder, "add", "site")
    git(folder, "commit", "--quiet", "--message", "site")
    write(folder, manage_DOT_py="changed")
    assert tree(folder / "site").label == git(folder, "rev-parse", "--short", "HEAD")


def test_a_work_tree_without_a_commit(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", manage_DOT_py="m")
    git(folder, "init", "--quiet")
    found = tree(folder)
    assert (list(found.entries), found.label) == (["manage.py"], "not committed yet")


def test_odd_names_arrive(tmp_path: Path) -> None:
    folder = repository(tmp_path / "app")
    names = ["with space.py", "grüße.txt", 'quo"te', "new\nline", "-dash", "$HOME"]
    for name in names:
        (folder / name).write_text(name)
    raw = os.fsencode(folder) + b"/\xff\xfe"
    Path(os.fsdecode(raw)).write_text("no UTF-8")
    found = tree(folder)
    assert set(names) <= set(found.entries)
    assert found.read(os.fsdecode(b"\xff\xfe")) == b"no UTF-8"
    assert len(found.digest) == 64


def test_excludes(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", a_DOT_py="", docs__a_DOT_md="", blog__docs__b_DOT_md="", blog__raw__c_DOT_psd="")
    assert set(tree(folder, "docs").entries) == {"a.py", "blog/raw/c.psd"}
    assert set(tree(folder, "docs/").entries) == {"a.py", "blog/raw/c.psd"}, "a bare name is one anywhere"
    assert set(tree(folder, "/docs").entries) == {"a.py", "blog/docs/b.md", "blog/raw/c.psd"}
    assert set(tree(folder, "*.psd").entries) == {"a.py", "docs/a.md", "blog/docs/b.md"}
    assert set(tree(folder, "blog/docs").entries) == {"a.py", "docs/a.md", "blog/raw/c.psd"}
    assert set(tree(folder, "*/raw", "a.*").entries) == {"blog/docs/b.md"}


#: Lines of a .gitignore, each file beside each other one: what git makes of them is what we must.
PATTERNS = (
    ("docs",), ("docs/",), ("/docs",), ("*.md",), ("blog/*",), ("blog/*", "!blog/raw"), ("blog/", "!blog/docs/b.md"),
    ("*", "!*/", "!*.py"), ("**/raw",), ("blog/**",), ("blog/**/c.psd",), ("a.*",), ("[ab].py",), ("[!a].py",),
    ("?.py",), ("blog/*.md",), ("*.psd", "!c.psd"), ("!a.py",), (r"\#x", "# a comment"), (r"\!y",), ("z ", "s\\ "),
    ("[a-", "b[.py"), ("**", "!a.py"), ("docs/**", "!docs/a.md"), ("/*", "!/blog"), ("raw/",), ("blog/raw/c.psd/",),
)  # fmt: skip


@pytest.mark.parametrize("patterns", PATTERNS)
def test_patterns_mean_what_git_says_they_mean(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    folder = write(tmp_path / "app", a_DOT_py="", b_DOT_py="", docs__a_DOT_md="", blog__docs__b_DOT_md="")
    write(folder, blog__raw__c_DOT_psd="", blog__raw__deep__d_DOT_py="")
    for name in ("#x", "!y", "z", "s "):
        (folder / name).write_text("")
    (folder / ".deployignore").write_text("\n".join(patterns))
    ours = set(tree(folder).entries)
    (folder / ".deployignore").rename(folder / ".gitignore")
    git(folder, "init", "--quiet")
    assert ours == set(tree(folder).entries) - {".gitignore"}


def test_a_deployignore_is_no_part_of_a_release(tmp_path: Path, bare: tuple[str, Path]) -> None:
    folder = write(
        tmp_path / "app", a_DOT_py="", b_DOT_md="", raw__c_DOT_psd="", _DOT_deployignore="*.md\n# x\n\nraw/\n"
    )
    found = tree(folder)
    assert set(found.entries) == {"a.py"}
    assert set(tree(folder, "!b.md").entries) == {"a.py", "b.md"}, "`exclude` comes after it"
    (folder / ".deployignore").write_text("*.md\nraw\n")
    assert tree(folder).digest == found.digest
    url, work = bare
    write(work, _DOT_deployignore="/blog")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--message", "ignore")
    git(work, "push", "--quiet", "origin", "main")
    assert set(source.read(Source(git=url, ref="main"), (), "blog").entries) == {".gitignore", "manage.py"}


def test_links_are_their_targets(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", real_DOT_py="r", pack__x="x")
    (folder / "link.py").symlink_to("real.py")
    (folder / "packlink").symlink_to("pack")
    (folder / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    found = tree(folder)
    assert set(found.entries) == {"real.py", "pack/x", "link.py", "packlink", "broken"}, "a pipe is no file"
    assert stat.S_ISLNK(found.entries["link.py"].mode) and found.read("link.py") == b"real.py"
    assert found.read("broken") == b"nowhere"
    (folder / "link.py").unlink()
    (folder / "link.py").symlink_to("pack")
    assert tree(folder).digest != found.digest


def test_the_digest_is_of_contents_only(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", b_DOT_py="b", a_DOT_py="a")
    (folder / "link").symlink_to("a.py")
    first = tree(folder)
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy, symlinks=True)
    for place in copy.iterdir():
        os.utime(place, (1, 1), follow_symlinks=False)
    (copy / "a.py").chmod(0o600)
    assert tree(copy).digest == first.digest, "times and the mode of others do not count"

    (copy / "a.py").chmod(0o700)
    executable = tree(copy).digest
    assert executable != first.digest
    (copy / "a.py").chmod(0o600)
    (copy / "a.py").rename(copy / "c.py")
    assert tree(copy).digest not in (first.digest, executable)
    (copy / "c.py").rename(copy / "a.py")
    (copy / "a.py").write_text("A")
    assert tree(copy).digest != first.digest


def test_a_work_tree_and_its_clone_are_one_release(tmp_path: Path) -> None:
    folder = repository(tmp_path / "app")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(folder), str(clone))
    digest = tree(folder).digest
    assert tree(clone).digest == digest
    assert source.read(Source(git=str(folder)), (), "blog").digest == digest


def test_remembered_hashes_see_every_change(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_UNSETTLED", 0)
    folder = write(tmp_path / "app", small_DOT_py="s")
    (folder / "large").write_bytes(b"x" * (5 * 2**20))
    first = tree(folder)
    (kept,) = (cache / "trees").iterdir()
    assert tree(folder).digest == first.digest
    # The same size and time of change of its content: the time of change of the file itself still tells.
    status = (folder / "large").stat()
    time.sleep(0.02)
    (folder / "large").write_bytes(b"y" * (5 * 2**20))
    os.utime(folder / "large", ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = tree(folder)
    assert changed.digest != first.digest and changed.entries["large"].sha != first.entries["large"].sha
    kept.write_text("damaged")
    assert tree(folder).digest == changed.digest


def test_unchanged_files_are_read_once_and_new_ones_each_time(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    hashing = source._hash
    monkeypatch.setattr(source, "_hash", lambda place, mode: read.append(place) or hashing(place, mode))
    folder = write(tmp_path / "app", a_DOT_py="a", b_DOT_py="b")
    first = tree(folder)
    assert tree(folder) == first
    assert len(read) == 4, "a file of this second may change again, and its times would not show it"
    monkeypatch.setattr(source, "_UNSETTLED", 0)
    assert tree(folder) == first and len(read) == 6
    assert tree(folder) == first and len(read) == 6
    (folder / "b.py").write_text("B")
    assert tree(folder) != first and read[6:] == [f"{folder}/b.py"]


def test_a_home_that_is_full_only_makes_it_slower(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_UNSETTLED", 0)
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("in the way")
    folder = write(tmp_path / "app", a_DOT_py="a")
    assert tree(folder) == tree(folder)


@pytest.fixture
def bare(tmp_path: Path) -> tuple[str, Path]:
    """The URL of a bare repository with a branch, a tag and commits, and a work tree that can push to it."""
    work = repository(tmp_path / "work")
    git(work, "tag", "v1")
    write(work, manage_DOT_py="second")
    git(work, "commit", "--quiet", "--all", "--message", "second")
    git(work, "branch", "side")
    write(work, manage_DOT_py="third")
    git(work, "commit", "--quiet", "--all", "--message", "third")
    place = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(place))
    git(work, "remote", "add", "origin", str(place))
    return f"file://{place}", work


def test_a_repository_by_branch_tag_and_commit(bare: tuple[str, Path]) -> None:
    url, work = bare
    commit = git(work, "rev-parse", "side")
    for ref, text in (("", b"third"), ("main", b"third"), ("side", b"second"), ("v1", b"print()"), (commit, b"second")):
        found = source.read(Source(git=url, ref=ref), (), "blog")
        assert found.read("manage.py") == text, ref
        assert set(found.entries) == {".gitignore", "manage.py", "blog/models.py"}
        assert found.label == f"{ref or 'HEAD'}@{git(work, 'rev-parse', f'{ref or chr(64)}^{{commit}}')[:7]}"
    assert source.read(Source(git=url), ("blog",), "blog").entries.keys() == {".gitignore", "manage.py"}


def test_a_folder_of_a_repository(bare: tuple[str, Path]) -> None:
    url, work = bare
    write(work, blog___DOT_deployignore="*.md", blog__README_DOT_md="")
    (work / "out").symlink_to("..")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--message", "more")
    git(work, "push", "--quiet", "origin", "main")
    found = source.read(Source(git=url, ref="main", inside="blog"), (), "blog")
    assert (set(found.entries), found.label[:5]) == ({"models.py"}, "main@")
    for place in ("block", "out", "manage.py"):
        with pytest.raises(DeploykitError, match=f"has no folder {place} at main") as caught:
            source.read(Source(git=url, ref="main", inside=place), (), "blog")
        assert "correct `folder`" in str(caught.value)


def test_a_branch_that_moves_is_followed(bare: tuple[str, Path]) -> None:
    url, work = bare
    before = source.read(Source(git=url, ref="main"), (), "blog")
    write(work, manage_DOT_py="fourth")
    git(work, "commit", "--quiet", "--all", "--message", "fourth")
    git(work, "push", "--quiet", "origin", "main")
    after = source.read(Source(git=url, ref="main"), (), "blog")
    assert after.read("manage.py") == b"fourth" and before.read("manage.py") == b"third"
    git(work, "reset", "--quiet", "--hard", "v1")
    git(work, "push", "--quiet", "--force", "origin", "main")
    assert source.read(Source(git=url, ref="main"), (), "blog").read("manage.py") == b"print()"


def test_a_known_commit_needs_no_network(bare: tuple[str, Path]) -> None:
    url, work = bare
    commit = git(work, "rev-parse", "HEAD")
    first = source.read(Source(git=url, ref=commit), (), "blog")
    shutil.rmtree(url.removeprefix("file://"))
    assert source.read(Source(git=url, ref=commit), (), "blog").digest == first.digest
    with pytest.raises(DeploykitError, match="cannot fetch"):
        source.read(Source(git=url, ref="main"), (), "blog")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Source(folder=Path("/nowhere/at/all")), ("source of blog is not there", "/nowhere/at/all", "[apps.blog]")),
        (Source(git="file:///nowhere.git"), ("git cannot fetch file:///nowhere.git", "[apps.blog] source")),
        (Source(git="--upload-pack=touch /tmp/x"), ("is no git ref or URL", "[apps.blog] source")),
        (Source(git="file:///x", ref="--output=/tmp/x"), ("--output=/tmp/x is no git ref", "[apps.blog] source")),
    ],
)
def test_what_cannot_be_read_says_where_to_correct_it(where: Source, words: tuple[str, ...]) -> None:
    with pytest.raises(DeploykitError) as caught:
        source.read(where, (), "blog")
    for word in words:
        assert word in str(caught.value)


def test_a_ref_that_is_not_there(bare: tuple[str, Path]) -> None:
    url, _ = bare
    with pytest.raises(DeploykitError) as caught:
        source.read(Source(git=url, ref="mian"), (), "blog")
    assert "no branch, tag or commit mian" in str(caught.value) and "correct `ref`" in str(caught.value)


def test_a_submodule_that_would_be_missing_is_told(tmp_path: Path) -> None:
    inner, outer = repository(tmp_path / "inner"), repository(tmp_path / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "vendor/inner")
    git(outer, "commit", "--quiet", "--message", "with a submodule")
    for chosen in (Source(folder=outer), Source(git=f"file://{outer}", ref="main")):
        with pytest.raises(DeploykitError, match="submodule vendor/inner would be missing") as caught:
            source.read(chosen, (), "blog")
        assert 'exclude = ["vendor/inner"]' in str(caught.value)
        assert "manage.py" in source.read(chosen, ("vendor/inner/",), "blog").paths
    url = f"file://{outer}"
    with pytest.raises(DeploykitError, match="submodule inner would be missing"):
        source.read(Source(git=url, ref="main", inside="vendor"), (), "blog")
    assert source.read(Source(git=url, ref="main", inside="blog"), (), "blog").paths == ("models.py",)
