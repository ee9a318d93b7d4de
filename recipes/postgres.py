"""PostgreSQL: one cluster, and for each app a role and a database that no other app can open.

Roles are named as the apps' OS users and log in over the socket by that name alone (peer authentication, Debian's
default): there is no password that could leak.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from deploykit.agent import dump
from deploykit.agent.process import remembered, run
from deploykit.agent.resource import Action, Failed, NotYet, Render, Resource, State
from deploykit.agent.resources import Directory, File, Package, SharedService
from deploykit.agent.values import Facts, Host
from deploykit.recipes.sizing import sizes
from deploykit.recipes.systems import system

_SOCKETS = "/run/postgresql"

_SEEN = """
SELECT json_build_object(
    'version', current_setting('server_version_num')::int / 10000,
    'roles', (SELECT json_object_agg(rolname, array_remove(ARRAY[
            CASE WHEN rolcanlogin THEN 'login' END,
            CASE WHEN rolsuper THEN 'superuser' END,
            CASE WHEN rolcreatedb THEN 'createdb' END,
            CASE WHEN rolcreaterole THEN 'createrole' END,
            CASE WHEN rolreplication THEN 'replication' END,
            CASE WHEN rolbypassrls THEN 'bypassrls' END], NULL)) FROM pg_roles),
    'databases', (SELECT json_object_agg(datname, json_build_object(
            'owner', pg_get_userbyid(datdba),
            'encoding', pg_encoding_to_char(encoding),
            'public', EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))
                              WHERE grantee = 0 AND privilege_type = 'CONNECT')))
        FROM pg_database),
    'settings', (SELECT json_object_agg(name, current_setting(name)) FROM pg_settings WHERE context = 'postmaster'));
"""


@dataclass(frozen=True)
class Role(Resource):
    """A role that may log in and nothing more. It owns data, so no plan removes it."""

    removable: ClassVar[bool] = False
    asks: ClassVar[bool] = True
    together: ClassVar[bool] = True

    name: str
    major: str

    @property
    def key(self) -> str:
        return f"postgres role {self.name}"

    def wanted(self) -> State:
        return {"attributes": ("login",)}

    def observe(self) -> State | None:
        attributes = seen(self.major)["roles"].get(self.name)
        return None if attributes is None else {"attributes": tuple(attributes)}

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One psql for all."""
        script = Script()
        for role in (each for each in several if isinstance(each, Role)):
            verb = "CREATE" if role.observe() is None else "ALTER"
            attributes = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            script.add(role.major, f"{verb} ROLE {script.name(role.name)} {attributes};")
        script.run()

    def erase(self) -> str:
        ask(self.major, 'DROP ROLE IF EXISTS :"name";', {"name": self.name})
        return ""


@dataclass(frozen=True)
class Database(Resource):
    """A database in UTF-8 that belongs to one role, and that no other may connect to. No plan removes it."""

    removable: ClassVar[bool] = False
    together: ClassVar[bool] = True

    name: str
    owner: str
    major: str

    @property
    def key(self) -> str:
        return f"postgres database {self.name}"

    def wanted(self) -> State:
        return {"owner": self.owner, "encoding": "UTF8", "open to every role": False}

    def observe(self) -> State | None:
        found = seen(self.major)["databases"].get(self.name)
        if found is None:
            return None
        return {"owner": found["owner"], "encoding": found["encoding"], "open to every role": found["public"]}

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One psql for all."""
        script = Script()
        databases = [each for each in several if isinstance(each, Database)]
        for each in databases:
            each._make(script)
        script.run()
        for each in databases:
            if int(each.major) < 15:  # from 15 on the database's owner is the schema's, by the role pg_database_owner
                owner = {"owner": each.owner}
                ask(each.major, 'ALTER SCHEMA public OWNER TO :"owner";', owner, database=each.name)

    def _make(self, script: Script) -> None:
        observed = self.observe()
        name, owner = script.name(self.name), script.name(self.owner)
        if observed is None:
            # template0: the only template that takes another locale; C.UTF-8 sorts the same on every system
            script.add(
                self.major,
                f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8' "
                "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';",
            )
        elif observed["encoding"] != "UTF8":
            raise Failed(
                f"the database {self.name} is encoded in {observed['encoding']}, not UTF8",
                todo="Dump it, drop it and deploy again, then restore the dump.",
            )
        elif observed["owner"] != self.owner:
            script.add(self.major, f"ALTER DATABASE {name} OWNER TO {owner};")
        script.add(self.major, f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;")

    def erase(self) -> str:
        if self.observe() is None:
            return ""
        copy = dump.take(self.app, "postgres", self.name, "deleted")
        ask(self.major, 'DROP DATABASE IF EXISTS :"name" WITH (FORCE);', {"name": self.name})
        return str(copy)


@dataclass(frozen=True)
class Started(Resource):
    """What the running cluster must have been started with; a restart if it was started with something else.

    A resource and not an action of the file: so a cluster that started with the right values, as a new one does,
    is not restarted, which takes Debian's pg_ctlcluster two seconds and cuts off every connection.
    """

    removable: ClassVar[bool] = False

    major: str
    settings: tuple[tuple[str, str], ...]  # as PostgreSQL itself writes them: 128MB, 1GB

    @property
    def key(self) -> str:
        return "postgres settings"

    def wanted(self) -> State:
        return dict(self.settings)

    def observe(self) -> State | None:
        running = seen(self.major)["settings"]
        return {name: running.get(name, "") for name, _ in self.settings}

    def change(self, observed: State | None) -> None:
        run(readable(self.major))
        run(("systemctl", "restart", cluster(self.major)))


@remembered
def seen(major: str) -> Mapping[str, Any]:
    """All roles and databases of the cluster: one process for any number of resources. Raises NotYet, Failed."""
    if not os.path.exists(_psql(major)):
        _alone(major)
        raise NotYet("PostgreSQL is not installed")
    done = run((_psql(major), *_OPTIONS, "-d", "postgres"), user="postgres", stdin=_SEEN, check=False)
    if done.returncode != 0:
        raise NotYet(f"PostgreSQL does not answer: {done.stderr.strip().partition(chr(10))[0]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if str(answer["version"]) != major:
        raise _other(str(answer["version"]), major)
    return answer


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


def ask(major: str, statement: str, values: Mapping[str, str], database: str = "postgres") -> str:
    """Runs SQL as the superuser; psql quotes the values where it says `:"name"` or `:'name'`. Raises Failed."""
    variables = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    argv = (_psql(major), *_OPTIONS, *variables, "-d", database)
    return run(argv, user="postgres", stdin=statement).stdout


@dataclass
class Script:
    """Statements for one psql. Names are given to it as variables, which it quotes itself."""

    major: str = ""
    statements: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def name(self, value: str) -> str:
        """How a name is written in a statement."""
        variable = f"name{len(self.values)}"
        self.values[variable] = value
        return f':"{variable}"'

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


def cluster(major: str) -> str:
    """The service of the cluster that Debian makes."""
    return f"postgresql@{major}-main.service"


def readable(major: str) -> tuple[str, ...]:
    """The command that reads the cluster's settings as a start would, and fails when they are wrong."""
    return (
        *("runuser", "-u", "postgres", "--", f"/usr/lib/postgresql/{major}/bin/postgres"),
        *("-D", f"/var/lib/postgresql/{major}/main", "-c", f"config_file=/etc/postgresql/{major}/main/postgresql.conf"),
        *("-C", "max_connections"),
    )


def early(host: Host, facts: Facts) -> Iterator[Resource]:
    """What must be there before the package is: with these values in it, the first cluster need not be restarted."""
    if not any(app.database.kind == "postgres" for app in host.apps):
        return
    lines = "".join(f"{name} = '{value}'\n" for name, value in _start(host, facts))
    yield Directory("/etc/postgresql-common")
    yield Directory("/etc/postgresql-common/createcluster.d")
    yield File(
        "/etc/postgresql-common/createcluster.d/deploykit.conf",
        f"# Written by deploykit, for clusters that are made from now on: see pg_createcluster(1).\n{lines}",
    )


def _start(host: Host, facts: Facts) -> tuple[tuple[str, str], ...]:
    size = sizes(facts, host.apps).postgres
    return (
        ("listen_addresses", "localhost"),
        ("max_connections", str(size.max_connections)),
        ("shared_buffers", written(size.shared_buffers)),
    )


def written(mebibytes: int) -> str:
    """An amount of memory as PostgreSQL writes it: in the largest unit that leaves no rest."""
    return f"{mebibytes}MB" if mebibytes % 1024 else f"{mebibytes // 1024}GB"


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """A cluster sized for this host, and each app's role and database."""
    apps = [app for app in host.apps if app.database.kind == "postgres"]
    if not apps:
        return
    major = system(facts).postgres
    yield Package(f"postgresql-{major}")  # not the package postgresql: another repository's would be another major

    start = _start(host, facts)
    text = render("postgres/deploykit.conf.j2", start=start, size=sizes(facts, host.apps).postgres)
    reload = Action("reload PostgreSQL", (("systemctl", "reload", cluster(major)),), check=readable(major))
    yield File(f"/etc/postgresql/{major}/main/conf.d/deploykit.conf", text, actions=(reload,))
    yield SharedService("postgresql.service")  # stands for all clusters: starts them at boot
    yield SharedService(cluster(major))
    yield Started(major, start)

    for app in apps:
        yield Role(app.user, major, app=app.name)
        yield Database(app.database.name, app.user, major, app=app.name)
