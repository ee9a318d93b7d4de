"""Talking to the host's PostgreSQL as its superuser: what it has, and statements for it.

In an app's database that app may have put a table or a function of any name into a schema of its own, and that schema
first in the search path (CVE-2018-1058): what the superuser runs there must not find them. So the search path is ours,
whatever the database's settings say.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploykit.agent import process
from deploykit.agent.process import remembered, run
from deploykit.agent.resource import Failed, NotYet

_SOCKETS = "/run/postgresql"

_SEEN = """
SELECT json_build_object(
    'version', current_setting('server_version_num')::int / 10000,
    'roles', (SELECT json_object_agg(rolname, json_build_object('connections', rolconnlimit, 'attributes',
        array_remove(ARRAY[
            CASE WHEN rolcanlogin THEN 'login' END,
            CASE WHEN rolsuper THEN 'superuser' END,
            CASE WHEN rolcreatedb THEN 'createdb' END,
            CASE WHEN rolcreaterole THEN 'createrole' END,
            CASE WHEN rolreplication THEN 'replication' END,
            CASE WHEN rolbypassrls THEN 'bypassrls' END], NULL))) FROM pg_roles),
    'databases', (SELECT json_object_agg(datname, json_build_object(
            'owner', pg_get_userbyid(datdba),
            'encoding', pg_encoding_to_char(encoding),
            'public', EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))
                              WHERE grantee = 0 AND privilege_type = 'CONNECT'),
            'settings', (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0)))
        FROM pg_database d),
    'settings', (SELECT json_object_agg(name, current_setting(name)) FROM pg_settings WHERE context = 'postmaster'));
"""


def begin() -> None:
    """Starts the psql that `seen` asks, which is most of its time: if there is but one, and a cluster listens."""
    found = glob.glob(_psql("*"))
    if len(found) == 1 and os.path.exists(f"{_SOCKETS}/.s.PGSQL.5432"):
        process.begin((found[0], *_OPTIONS, "-d", "postgres"), user="postgres", env=_path())


@remembered
def seen(major: str) -> Mapping[str, Any]:
    """All roles and databases of the cluster: one process for any number of resources. Raises NotYet, Failed."""
    if not os.path.exists(_psql(major)):
        _alone(major)
        raise NotYet("PostgreSQL is not installed")
    done = run((_psql(major), *_OPTIONS, "-d", "postgres"), user="postgres", stdin=_SEEN, env=_path(), check=False)
    if done.returncode != 0:
        raise NotYet(f"PostgreSQL does not answer: {done.stderr.strip().partition(chr(10))[0]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if str(answer["version"]) != major:
        raise _other(str(answer["version"]), major)
    return answer


@remembered
def extensions(major: str, databases: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """The extensions of those of the databases that are there: one process for all. Raises NotYet, Failed."""
    there = [name for name in databases if name in seen(major)["databases"]]
    script = "".join(
        f"\\connect {name}\nSELECT json_build_object('{name}', (SELECT json_agg(extname) FROM pg_extension));\n"
        for name in there
    )
    done = run((_psql(major), *_OPTIONS, "-d", "postgres"), user="postgres", stdin=script, env=_path())
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def _alone(major: str) -> None:
    """Raises Failed when another PostgreSQL has the port: of apt.postgresql.org, or from before the system's upgrade.

    Told before anything is installed: Debian's scripts would give ours another port, and from version 269 on
    no cluster at all: https://manpages.debian.org/trixie/postgresql-common/pg_createcluster.1.en.html
    """
    for path in glob.glob("/etc/postgresql/*/*/postgresql.conf"):
        found = path.split("/")[-3]
        if found == major:
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            port = re.search(r"^\s*port\s*=?\s*(\d+)", file.read(), re.MULTILINE)
        if port is None or port[1] == "5432":
            raise _other(found, major)


def _other(found: str, major: str) -> Failed:
    return Failed(
        f"PostgreSQL {found} has port 5432, and {major}, this system's own, was expected",
        "`pg_lsclusters` on the host shows every cluster.",
        f"After an upgrade of the system: `pg_upgradecluster {found} main`. Else move that cluster to another port "
        '(`port` in its postgresql.conf), or use it by a URL, `database = { env = "DATABASE_URL" }`. Deploy again.',
    )


#: No psqlrc, bare values, the first error ends it. The cluster's own socket and port, whatever the environment says.
_OPTIONS = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", _SOCKETS, "-p", "5432")


def _path(schema: str = "pg_catalog") -> dict[str, str]:
    return {"PGOPTIONS": f"-c search_path={schema}"}


def ask(
    major: str, statement: str, values: Mapping[str, str], database: str = "postgres", schema: str = "pg_catalog"
) -> str:
    """Runs SQL as the superuser; psql quotes the values where it says `:"name"` or `:'name'`. Raises Failed.

    `schema` is the search path: where names are looked up, and what is made without one is put.
    """
    variables = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    argv = (_psql(major), *_OPTIONS, *variables, "-d", database)
    return run(argv, user="postgres", stdin=statement, env=_path(schema)).stdout


@dataclass
class Script:
    """Statements for one psql. Names and texts are given to it as variables, which it quotes itself."""

    major: str = ""
    statements: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def name(self, value: str) -> str:
        """How a name is written in a statement."""
        variable = f"name{len(self.values)}"
        self.values[variable] = value
        return f':"{variable}"'

    def text(self, value: str) -> str:
        """How a text is written in a statement."""
        variable = f"text{len(self.values)}"
        self.values[variable] = value
        return f":'{variable}'"

    def add(self, major: str, statement: str) -> None:
        self.major = major
        self.statements.append(statement)

    def run(self) -> None:
        """All of them, up to the first that fails. Raises Failed."""
        if self.statements:
            ask(self.major, "\n".join(self.statements), self.values)


def _psql(major: str) -> str:
    """psql itself: Debian's /usr/bin/psql is a script that looks for a cluster first, which costs 60 ms."""
    return f"/usr/lib/postgresql/{major}/bin/psql"
