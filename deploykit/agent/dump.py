"""A copy of an app's database before it is migrated or destroyed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from deploykit.agent.process import run
from deploykit.agent.resource import Failed
from deploykit.model import layout

#: The number of tables; those that an extension brings along (PostGIS has one) are nobody's data.
_TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
KEEP = 5  # dumps made before migrations; older ones of these are dropped, others never


def take(app: str, kind: str, name: str, why: str) -> Path | None:
    """Dumps the app's local database to /var/backups/deploykit/<app>/, 0600 root; None when there is none to dump.

    A PostgreSQL dump is in `pg_restore`'s custom format, an SQLite one is a database file.
    """
    import sqlite3

    folder = layout.backups(app)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    suffix = {"postgres": "dump", "sqlite": "sqlite3"}.get(kind)
    if suffix is None or (kind == "sqlite" and not Path(name).exists()):
        return None
    place = folder / f"{stamp}-{why}.{suffix}"
    partial = place.with_suffix(".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if kind == "postgres":
            # pg_dump runs as postgres and may not write here: root opens the file, pg_dump gets it as its output.
            _pg_dump(name, handle)
        else:
            with sqlite3.connect(f"file:{name}?mode=ro", uri=True) as source, sqlite3.connect(partial) as copy:
                source.backup(copy)
        os.fsync(handle)
        partial.rename(place)
    except (Failed, sqlite3.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise Failed(
            f"the database of {app} could not be dumped, so it was not touched",
            getattr(error, "detail", "") or str(error),
            "free some disk space or mend the database, then run again",
        ) from None
    finally:
        os.close(handle)
    return place


def _pg_dump(name: str, handle: int) -> None:
    import pwd
    import subprocess

    from deploykit.agent.process import ENVIRONMENT, kept, tail

    account = pwd.getpwnam("postgres")
    done = subprocess.run(
        ["pg_dump", "--format=custom", f"--dbname={name}"],
        stdout=handle,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, "HOME": account.pw_dir},
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        pass_fds=kept(),
    )
    if done.returncode != 0:
        raise Failed("pg_dump failed", tail(done.stderr.decode("utf-8", "replace")))


def prune(app: str) -> None:
    """Keeps the newest dumps that migrations asked for."""
    made = sorted(path for path in (layout.backups(app)).glob("*-before-*") if path.suffix in (".dump", ".sqlite3"))
    for old in made[:-KEEP]:
        old.unlink(missing_ok=True)


def empty(kind: str, name: str) -> bool:
    """Whether the database has no tables yet, so that there is nothing to dump and everything to migrate."""
    if kind == "sqlite":
        return not Path(name).exists() or Path(name).stat().st_size == 0
    if kind == "postgres":
        # The superuser must not find what the app may have put first in its database's search path.
        safe = {"PGOPTIONS": "-c search_path=pg_catalog"}
        answer = run(["psql", "-XAtq", "-d", name, "-c", _TABLES], user="postgres", env=safe, check=False)
        return answer.stdout.strip() == "0"
    return False
