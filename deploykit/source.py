"""An app's source as a tree of contents: what is sent is what the host lacks, and equal trees have equal names."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

from deploykit import cache, ignore, worktree
from deploykit.agent.dataclass import dataclass
from deploykit.config.project import Source
from deploykit.errors import DeploykitError

#: Never part of a release when the folder is no git work tree (in one, git's own ignore rules decide).
LEFT_OUT = (
    ".git", ".hg", ".svn", ".venv", "venv", "env", "node_modules", "__pycache__", "*.pyc", ".DS_Store", ".env",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", "*.sqlite3", "*.sqlite3-*", ".deploykit", "deploykit.toml",
)  # fmt: skip
_LARGEST_LIST = 1 << 20  # bytes of a .deployignore
#: A file that was changed so short a time ago may change again without its times showing it. Nanoseconds.
_UNSETTLED = 2 * 10**9


class Entry(NamedTuple):
    """One file: its mode (a link's is S_IFLNK), size in bytes, SHA-256 of its content (of its target, for a link)."""

    mode: int
    size: int
    sha: str


@dataclass(frozen=True)
class Tree:
    """A source at one moment. `digest` names its contents; `label` is for people."""

    folder: Path
    entries: dict[str, Entry]
    digest: str
    label: str
    paths: Sequence[str] = field(default=())

    def read(self, path: str) -> bytes:
        """A file's content. Raises KeyError for what is not in the tree."""
        return content(self.folder / path, self.entries[path].mode)

    def listing(self) -> list[tuple[str, int, int, str]]:
        """(path, mode, size, sha256) of each file, by path: what the agent asks for."""
        return [(path, each.mode, each.size, each.sha) for path, each in self.entries.items()]


def content(place: Path, mode: int) -> bytes:
    """What counts as a file's content: the target of a link."""
    return os.fsencode(os.readlink(place)) if stat.S_ISLNK(mode) else place.read_bytes()


def read_all(sources: Mapping[str, tuple[Source, Sequence[str]]]) -> dict[str, Tree]:
    """The trees of several apps, by name, each from (source, what is excluded). Raises DeploykitError."""
    known = worktree.survey(source.folder for source, _ in sources.values() if source.folder and not source.git)
    with ThreadPoolExecutor(max_workers=4) as pool:  # repositories from elsewhere are waited for
        fetched = {app: pool.submit(read, *each, app, known) for app, each in sources.items() if each[0].git}
        return {app: fetched[app].result() if app in fetched else read(*sources[app], app, known) for app in sources}


def read(
    source: Source, exclude: Sequence[str] = (), app: str = "", known: Mapping[Path, worktree.Work] | None = None
) -> Tree:
    """The tree of a source. `known`: what git said of folders already. Raises DeploykitError when there is none."""
    if source.git:
        top, commit = _checkout(source.git, source.ref or "HEAD", app)
        folder = top / source.inside
        if not folder.is_dir() or not folder.resolve().is_relative_to(top.resolve()):
            raise DeploykitError(
                f"{source.git} has no folder {source.inside} at {source.ref or 'HEAD'}",
                f"[apps.{app}] source",
                f"correct `folder` of the source of [apps.{app}]",
            )
        return _tree(folder, list(_walk(folder, ())), exclude, f"{source.ref or 'HEAD'}@{commit[:7]}", top)
    if source.folder is None:
        return Tree(Path(), {}, hashlib.sha256(b"").hexdigest(), "packages")
    folder = source.folder
    if not folder.is_dir():
        raise DeploykitError(
            f"the source of {app} is not there", str(folder), f"correct `source` in [apps.{app}]: a folder or a git URL"
        )
    work = (worktree.survey([folder]) if known is None else known).get(folder)
    if work is None or (not work.paths and any(folder.iterdir())):  # none, or one that ignores the folder altogether
        return _tree(folder, list(_walk(folder, LEFT_OUT)), exclude, "folder")
    return _tree(folder, work.paths, exclude, work.label)


def _walk(folder: Path, left_out: Sequence[str]) -> Iterator[str]:
    for top, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(each for each in folders if not _matches(each, left_out))
        inside = os.path.relpath(top, folder)
        # A link to a folder is listed among the folders, but it is a thing of its own.
        links = [each for each in folders if os.path.islink(os.path.join(top, each))]
        for name in (*files, *links):
            if not _matches(name, left_out):
                yield name if inside == "." else f"{inside}/{name}"


def _unreadable(error: OSError) -> None:
    raise DeploykitError(
        f"{error.filename} cannot be read: {error.strerror}",
        "the source",
        "make it readable, or leave it out with `exclude`",
    ) from None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _tree(folder: Path, paths: Sequence[str], exclude: Sequence[str], label: str, top: Path | None = None) -> Tree:
    """The files at `paths` in a folder, which may be one inside a repository that begins at `top`."""
    known = _Known(folder)
    left_out = ignore.Ignore([*_deployignore(folder), *exclude])
    entries = {}
    begin = os.path.join(folder, "")  # a thousand paths are joined
    for path in sorted(paths):
        if path == ignore.FILE or left_out(path):
            continue
        place = begin + path
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue  # tracked by git, deleted in the work tree
        except OSError as error:
            _unreadable(error)
        if stat.S_ISLNK(status.st_mode) or stat.S_ISREG(status.st_mode):
            try:
                entries[path] = known.entry(path, place, status)
            except OSError as error:
                _unreadable(error)
    known.keep()
    _no_submodules(top or folder, folder, entries, left_out)
    lines = "".join(f"{path}\0{each.mode & 0o170111:o}\0{each.sha}\n" for path, each in entries.items())
    digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    return Tree(folder, entries, digest, label, tuple(entries))


def _deployignore(folder: Path) -> Sequence[str]:
    place = folder / ignore.FILE
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for
    except FileNotFoundError:
        return ()
    except OSError as error:
        _unreadable(error)
        return ()
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_LIST:
            what = "is too large" if stat.S_ISREG(status.st_mode) else "is not a regular file"
            raise DeploykitError(f"{ignore.FILE} {what}", str(place), "write one pattern a line into it, or remove it")
        return ignore.lines(os.read(handle, _LARGEST_LIST).decode("utf-8", "replace"))
    finally:
        os.close(handle)


def _no_submodules(top: Path, folder: Path, entries: Mapping[str, Entry], left_out: ignore.Ignore) -> None:
    """A submodule's files are not listed by git: better no release than one that lacks them in silence."""
    try:
        text = (top / ".gitmodules").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for place in re.findall(r"^\s*path\s*=\s*(\S.*?)\s*$", text, re.MULTILINE):
        path = os.path.relpath(top / place, folder)
        if path.startswith("../") or left_out(f"{path}/file"):
            continue
        if not any(each.startswith(f"{path}/") for each in entries):
            raise DeploykitError(
                f"the git submodule {path} would be missing from the release: submodules are not fetched",
                str(folder),
                f'put its files into the repository, or say that the app does without them: exclude = ["{path}"]',
            )


class _Known:
    """Hashes of files that have not changed since the last run, by size, inode and time of change."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:24]
        self._place = cache.FOLDER / "trees" / f"{name}.json"
        self._old: dict[str, list[object]] = {}
        self._new: dict[str, list[object]] = {}
        self._hashed = False
        self._settled = time.time_ns() - _UNSETTLED
        # The first time there is none, and a damaged one is made anew.
        with contextlib.suppress(OSError, ValueError):
            self._old = json.loads(self._place.read_bytes())

    def entry(self, path: str, place: str, status: os.stat_result) -> Entry:
        mark = [status.st_size, status.st_ino, status.st_ctime_ns, status.st_mtime_ns]
        kept = self._old.get(path)
        if kept is not None and kept[:4] == mark:
            sha = str(kept[4])
        else:
            sha = _hash(place, status.st_mode)
            if max(status.st_ctime_ns, status.st_mtime_ns) > self._settled:
                return Entry(status.st_mode, status.st_size, sha)
            self._hashed = True
        self._new[path] = [*mark, sha]
        return Entry(status.st_mode, status.st_size, sha)

    def keep(self) -> None:
        """For the next run: a full or read-only home only makes it slower."""
        if self._hashed:
            with contextlib.suppress(OSError):
                cache.keep(self._place, json.dumps(self._new))


def _hash(place: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return hashlib.sha256(os.fsencode(os.readlink(place))).hexdigest()
    digest = hashlib.sha256()
    handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)  # a file object costs as much again as a small file
    try:
        while piece := os.read(handle, 1 << 20):
            digest.update(piece)
    finally:
        os.close(handle)
    return digest.hexdigest()


def _checkout(url: str, ref: str, app: str) -> tuple[Path, str]:
    """A folder with the repository's files at a ref, and the commit. Kept in the cache by commit."""
    base = cache.FOLDER / "git" / hashlib.sha256(url.encode()).hexdigest()[:24]
    mirror = base / "mirror"
    where = f"[apps.{app}] source"
    if ref.startswith("-") or url.startswith("-"):
        raise DeploykitError(f"{ref if ref.startswith('-') else url} is no git ref or URL", where)
    commit = _resolve(mirror, ref) if _is_commit(ref) and mirror.is_dir() else None
    if commit is None:
        mirror.parent.mkdir(parents=True, exist_ok=True)
        if not (mirror / "HEAD").exists():
            _fetch(["clone", "--quiet", "--mirror", "--", url, str(mirror)], url, where)
        else:
            _fetch(["-C", str(mirror), "fetch", "--quiet", "--prune", "--tags", "--force", "origin"], url, where)
        commit = _resolve(mirror, ref)
    if commit is None:
        raise DeploykitError(f"{url} has no branch, tag or commit {ref}", where, f"correct `ref` in [apps.{app}]")
    folder = base / commit
    if not folder.is_dir():
        fresh = base / f"{commit}.{os.getpid()}"
        _lay(mirror, commit, fresh, where)
        fresh.rename(folder)
    return folder, commit


def _lay(mirror: Path, commit: str, fresh: Path, where: str) -> None:
    """Every file of a commit. Not by `git archive`: it leaves out what .gitattributes says (export-ignore)."""
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    index = fresh.with_name(f"{fresh.name}.index")
    environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
    git = ["git", *worktree.SAFE, f"--git-dir={mirror}", f"--work-tree={fresh}", "-c", "core.bare=false"]
    try:
        for words in (["read-tree", commit], ["checkout-index", "--all", "--force"]):
            done = subprocess.run([*git, *words], capture_output=True, check=False, env=environment, cwd=fresh)
            if done.returncode != 0:
                said = done.stderr.decode("utf-8", "replace").strip()
                raise DeploykitError(f"git cannot lay out commit {commit[:7]}", where, said)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        index.unlink(missing_ok=True)


def _is_commit(ref: str) -> bool:
    return len(ref) == 40 and all(letter in "0123456789abcdef" for letter in ref)


def _resolve(mirror: Path, ref: str) -> str | None:
    found = worktree.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"], mirror)
    return found.decode().strip() if found else None


def _fetch(arguments: Sequence[str], url: str, where: str) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(["git", *worktree.SAFE, *arguments], capture_output=True, check=False, env=environment)
    except FileNotFoundError:
        raise DeploykitError("git is not installed here", where, "install git, or use a folder as `source`") from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise DeploykitError(f"git cannot fetch {url}", where, words)
