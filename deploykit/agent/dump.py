"""A copy of an app's database before it is migrated or destroyed.

Dumps are root's alone, and root opens none of the app's files: it opens the dump, and a program that runs as the app's
user (or as PostgreSQL's) writes into that.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Sequence
from pathlib import Path

from deploykit.agent import trees
from deploykit.agent.process import TimedOut, run, tail
from deploykit.agent.resource import Failed
from deploykit.model import layout

#: The number of tables; those that an extension brings along (PostGIS has one) are nobody's data.
_TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
KEEP = 5  # dumps made before migrations; older ones of these are dropped, others never

_PATIENCE = 3600.0  # seconds for one dump: an app that holds a lock on its table must not hold up the host for ever
_LOCKED = 60_000  # milliseconds that pg_dump waits for the lock of one table
_LOOK = 60.0  # seconds to look at a file of the app's

_ABSENT, _NO_FILE = 3, 4

#: Runs as the app's user, who may debug it: its answers are checked. "size FILE"; "dump FILE FOLDER": a consistent
#: copy, by SQLite's own backup, to standard output (made in FOLDER first); "copy FILE": its bytes; "find FOLDER...":
#: the SQLite files below, by how they begin, as hex digits, a line each (https://www.sqlite.org/fileformat.html).
_AS_APP = r"""
import os, sqlite3, stat, sys
from urllib.parse import quote
def regular(name):
    try:
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        sys.exit(3 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else str(error))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        sys.exit(4)
    return file
def spill(file):  # to standard output, without the holes: a file of some bytes may be terabytes long
    out, place, size = sys.stdout.fileno(), 0, os.fstat(file).st_size
    while place < size:
        try:
            begin = os.lseek(file, place, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole to the end
            break
        place = os.lseek(file, begin, os.SEEK_HOLE)
        os.lseek(file, begin, os.SEEK_SET)
        os.lseek(out, begin, os.SEEK_SET)
        while begin < place and (piece := os.read(file, min(1 << 20, place - begin))):
            begin += len(piece)
            while piece:
                piece = piece[os.write(out, piece):]
    os.ftruncate(out, size)
what, name, *rest = sys.argv[1:]
if what == "size":
    print(os.fstat(regular(name)).st_size)
elif what == "copy":
    spill(regular(name))
elif what == "dump":
    os.close(regular(name))
    try:
        uri = "file:" + quote(os.fsencode(os.path.abspath(name))) + "?mode=rw"
        source = sqlite3.connect(uri, uri=True, timeout=60)
        copy = sqlite3.connect(rest[0] + "/copy")
        source.backup(copy)
        copy.close()
        source.close()
    except sqlite3.Error as error:
        sys.exit(f"sqlite3: {error}")
    spill(regular(rest[0] + "/copy"))
else:
    folders = [name, *rest]
    while folders:  # os.walk does one call a level before Python 3.12
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda each: each.name)
        except OSError:
            continue
        folders += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
        for each in entries:
            try:
                if not each.is_file(follow_symlinks=False):
                    continue
                file = os.open(each.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            if stat.S_ISREG(os.fstat(file).st_mode) and os.read(file, 16) == b"SQLite format 3\0":
                print(os.fsencode(each.path).hex())
            os.close(file)
"""


def take(app: str, kind: str, name: str, why: str, *, whole: bool = True) -> Path | None:
    """Dumps the app's local database to /var/backups/deploykit/<app>/, 0600 root; None when there is none to dump.

    A PostgreSQL dump is in `pg_restore`'s custom format, an SQLite one is a database file. With `whole` false, an
    SQLite file that SQLite cannot read is copied as it is. Raises Failed.
    """
    suffix = {"postgres": "dump", "sqlite": "sqlite3"}.get(kind)
    if suffix is None or (kind == "sqlite" and _size(app, name) is None):
        return None
    folder = layout.backups(app)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(app)
    place = _free(folder, f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{why}", suffix)
    partial = place.with_suffix(".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        if kind == "postgres":
            _pg_dump(name, handle)
        else:
            _sqlite_dump(app, name, handle, whole=whole)
        os.fsync(handle)
        partial.rename(place)
    except (Failed, OSError) as error:
        partial.unlink(missing_ok=True)
        raise Failed(
            f"the database of {app} could not be dumped, so it was not touched",
            "\n".join(filter(None, (getattr(error, "what", str(error)), getattr(error, "detail", "")))),
            "free some disk space or repair the database, then run again",
        ) from None
    finally:
        os.close(handle)
    return place


def sweep(app: str) -> None:
    """Removes what dumps left that were killed. The host's lock is held: none is being made."""
    for partial in layout.backups(app).glob("*.partial"):
        partial.unlink(missing_ok=True)
    for folder in layout.home(app).glob(f"{_SCRATCH}*"):
        trees.remove(folder, check=False)


_SCRATCH = ".dump-"


def _free(folder: Path, stem: str, suffix: str) -> Path:
    place, number = folder / f"{stem}.{suffix}", 1
    while place.exists():  # two of one name in the same second
        number += 1
        place = folder / f"{stem}-{number}.{suffix}"
    return place


def _pg_dump(name: str, handle: int) -> None:
    # The whole file was opened by root: pg_dump, which runs as postgres, may not write there.
    words = ("--format=custom", f"--lock-wait-timeout={_LOCKED}", f"--dbname={name}")
    done = run(["pg_dump", *words], user="postgres", into=handle, check=False, timeout=_PATIENCE)
    if done.returncode != 0:
        raise Failed("pg_dump failed", tail(done.stderr))


def _sqlite_dump(app: str, name: str, handle: int, *, whole: bool) -> None:
    import tempfile

    account = pwd.getpwnam(app)
    # Beside the app's data, which is where there is room; the app cannot put anything in the place of this folder.
    scratch = tempfile.mkdtemp(prefix=_SCRATCH, dir=layout.home(app))
    try:
        os.chown(scratch, account.pw_uid, account.pw_gid)
        try:
            done = _as_app(app, "dump", name, scratch, into=handle, timeout=_PATIENCE)
        except TimedOut as late:
            done = (1, "", late.what)
        if done[0] != 0 and not whole:  # damaged, or made so that its copy would fill the disk
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            done = _as_app(app, "copy", name, into=handle, timeout=_PATIENCE)
    finally:
        trees.remove(scratch, check=False)
    if done[0] != 0:
        raise Failed(f"{name} could not be read as an SQLite database", done[2])


def _as_app(app: str, *words: str, into: int | None = None, timeout: float = _LOOK) -> tuple[int, str, str]:
    """(exit status, output, words) of `_AS_APP`, run by a Python that has nothing of the app's in it."""
    argv = ["/usr/bin/python3", "-IS", "-c", _AS_APP, *words]
    done = run(argv, user=app, into=into, check=False, timeout=timeout)
    said = {_ABSENT: "the file is missing", _NO_FILE: "it is not a regular file"}.get(done.returncode, "")
    return done.returncode, done.stdout, said or tail(done.stderr, 3)


def _size(app: str, name: str) -> int | None:
    """The size of a file of the app's; None when there is none. Raises Failed for what is not a file."""
    if not name or "\0" in name:
        return None
    status, output, words = _as_app(app, "size", name)
    if status == _ABSENT:
        return None
    if status != 0:
        raise Failed(f"{name}, where the settings of {app} have the SQLite database, cannot be used", words)
    if not output.strip().isdecimal():
        raise Failed(f"the size of {name} of {app} cannot be read", output[:500])
    return int(output)


def prune(app: str, made: Path | None) -> None:
    """Keeps the newest dumps that migrations asked for, and the one just `made`, whatever the clock said of it."""
    dumps = sorted(path for path in layout.backups(app).glob("*-before-*") if path.suffix in (".dump", ".sqlite3"))
    for old in [each for each in dumps if each != made][: 1 - KEEP if made else -KEEP]:
        old.unlink(missing_ok=True)


def empty(app: str, kind: str, name: str) -> bool:
    """Whether the database has no tables yet, so that there is nothing to dump and everything to migrate."""
    if kind == "sqlite":
        return not _size(app, name)
    if kind == "postgres":
        # The superuser must not find what the app may have put first in its database's search path.
        safe = {"PGOPTIONS": "-c search_path=pg_catalog"}
        answer = run(
            ["psql", "-XAtq", "-d", name, "-c", _TABLES], user="postgres", env=safe, check=False, timeout=_LOOK
        )
        return answer.stdout.strip() == "0"
    return False


def sqlite_files(app: str, folders: Sequence[Path]) -> list[str]:
    """The SQLite files in folders of the app's. Raises Failed."""
    try:
        status, output, words = _as_app(app, "find", *map(str, folders), timeout=_PATIENCE)
        if status == 0:
            return [os.fsdecode(bytes.fromhex(line)) for line in output.split()]
    except (TimedOut, ValueError) as error:
        words = str(error)
    todo = f"keep what you need of {' and '.join(map(str, folders))}, remove them, then run the same command again"
    raise Failed(f"the data of {app} could not be searched for SQLite files", words, todo)


def plain_name(path: str) -> str:
    """What a dump of a file is called: a name of the app's own making, without what has a meaning elsewhere."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).stem)[:80]
