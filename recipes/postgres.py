"""PostgreSQL: one cluster, and for each app a role and a database that no other app can open.

Roles are named as the apps' OS users and log in over the socket by that name alone (peer authentication, Debian's
default): there is no password that could leak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from deploykit.agent import dump
from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import run
from deploykit.agent.resource import Action, Failed, NotYet, Render, Resource, State
from deploykit.agent.resources import REREAD, Directory, File, Package, SharedService
from deploykit.agent.values import Facts, Host
from deploykit.recipes.extensions import PACKAGES, PRELOADED
from deploykit.recipes.psql import Script, ask, extensions, seen
from deploykit.recipes.sizing import sizes
from deploykit.recipes.systems import system

#: Of all clusters.
_DROP_IN = "/etc/systemd/system/postgresql@.service.d"


@dataclass(frozen=True)
class Role(Resource):
    """A role that may log in and nothing more, `connections` times at once. It owns data, so no plan removes it."""

    removable: ClassVar[bool] = False
    asks: ClassVar[bool] = True
    together: ClassVar[bool] = True

    name: str
    major: str
    connections: int

    @property
    def key(self) -> str:
        return f"postgres role {self.name}"

    def wanted(self) -> State:
        return {"attributes": ("login",), "connections": self.connections}

    def observe(self) -> State | None:
        found = seen(self.major)["roles"].get(self.name)
        if found is None:
            return None
        return {"attributes": tuple(found["attributes"]), "connections": found["connections"]}

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One psql for all."""
        script = Script()
        for role in (each for each in several if isinstance(each, Role)):
            verb = "CREATE" if role.observe() is None else "ALTER"
            attributes = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            limit = f"CONNECTION LIMIT {int(role.connections)}"
            script.add(role.major, f"{verb} ROLE {script.name(role.name)} {attributes} {limit};")
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
        # What a killed client has begun goes on, with its locks: the dump would wait for those.
        ask(
            self.major,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :'name';",
            {"name": self.name},
        )
        copy = dump.take(self.app, "postgres", self.name, "deleted")
        ask(self.major, 'DROP DATABASE IF EXISTS :"name" WITH (FORCE);', {"name": self.name})
        return str(copy)


@dataclass(frozen=True)
class Setting(Resource):
    """A setting that each new connection to a database begins with. What others have set there is left alone."""

    together: ClassVar[bool] = True

    database: str
    name: str
    value: str
    major: str

    @property
    def key(self) -> str:
        return f"postgres setting {self.database} {self.name}"

    def wanted(self) -> State:
        return {"value": self._plain(self.value)}

    def observe(self) -> State | None:
        database = seen(self.major)["databases"].get(self.database)
        if database is None:
            raise NotYet(f"the database {self.database} is not there yet")
        for pair in database["settings"] or ():
            name, _, value = pair.partition("=")
            if name.lower() == self.name:
                return {"value": self._plain(value)}
        return None

    def _plain(self, value: str) -> str:
        """PostgreSQL quotes the names in a list, as the user may."""
        return ", ".join(_elements(value)) if self.name in _LISTS else value

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One psql for all."""
        script = Script()
        for each in (each for each in several if isinstance(each, Setting)):
            values = _elements(each.value) if each.name in _LISTS else [each.value]
            value = ", ".join(script.text(one) for one in values)
            script.add(each.major, f"ALTER DATABASE {script.name(each.database)} SET {each._name(script)} = {value};")
        try:
            script.run()
        except Failed as failure:
            apps = ", ".join(sorted({each.app for each in several}))
            todo = f"Correct `settings` of the database of {apps}: https://www.postgresql.org/docs/current/runtime-config.html"
            raise Failed("PostgreSQL refuses a database's setting", failure.detail, todo) from None

    def _name(self, script: Script) -> str:
        return ".".join(script.name(part) for part in self.name.split("."))

    def remove(self) -> None:
        script = Script()
        script.add(self.major, f"ALTER DATABASE {script.name(self.database)} RESET {self._name(script)};")
        script.run()


#: Settings that are lists of names, which PostgreSQL takes one by one.
_LISTS = frozenset({"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"})


def _elements(value: str) -> list[str]:
    return [part.strip().strip('"') for part in value.split(",")]


@dataclass(frozen=True)
class Extension(Resource):
    """An extension in a database, which only the superuser may make. Data may hang on it: no plan removes it."""

    removable: ClassVar[bool] = False
    asks: ClassVar[bool] = True
    together: ClassVar[bool] = True

    database: str
    name: str
    major: str

    def __post_init__(self) -> None:
        _extended.add(self.database)

    @property
    def key(self) -> str:
        return f"postgres extension {self.database} {self.name}"

    def wanted(self) -> State:
        return {"installed": True}

    def observe(self) -> State | None:
        found = extensions(self.major, tuple(sorted(_extended))).get(self.database)
        if found is None:
            raise NotYet(f"the database {self.database} is not there yet")
        return {"installed": True} if self.name in found else None

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One psql each: an extension that is there is named by no other's failure."""
        for each in several:
            if isinstance(each, Extension):
                each._make()

    def _make(self) -> None:
        # CASCADE: with those it needs. In the schema public, but for what has a schema of its own.
        statement = 'CREATE EXTENSION IF NOT EXISTS :"name" CASCADE;'
        try:
            ask(self.major, statement, {"name": self.name}, database=self.database, schema="public")
        except Failed as failure:
            what = f"PostgreSQL cannot make the extension {self.name} in the database {self.database}"
            todo = ""
            if "is not available" in failure.detail or "could not open extension control file" in failure.detail:
                todo = (
                    f'If a package of the system has it, name that: `apt = ["postgresql-{self.major}-..."]` in '
                    f"[apps.{self.app}]. Its name may also be wrong: `SELECT name FROM pg_available_extensions`."
                )
            raise Failed(what, failure.detail, todo) from None


#: Every database that a resource of this run wants an extension in, so that the first question asks for all of them.
_extended: set[str] = set()


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

    def consequences(self, observed: State | None) -> tuple[str, ...]:
        return ("restart PostgreSQL: for some seconds its apps have no database",)

    def change(self, observed: State | None) -> None:
        run(readable(self.major))
        run(("systemctl", "restart", cluster(self.major)))


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


def _preloaded(host: Host) -> tuple[tuple[str, str], ...]:
    """Not in `early`: the cluster may be made before the libraries' packages are set up."""
    wanted = {name for app in host.apps for name in app.database.extensions} & PRELOADED
    return (("shared_preload_libraries", ",".join(sorted(wanted))),) if wanted else ()


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

    for name in sorted({name for app in apps for name in app.database.extensions} & PACKAGES.keys()):
        yield Package(PACKAGES[name].format(major=major))

    start = (*_start(host, facts), *_preloaded(host))
    text = render("postgres/deploykit.conf.j2", start=start, size=sizes(facts, host.apps).postgres)
    reload = Action("reload PostgreSQL", (("systemctl", "reload", cluster(major)),), check=readable(major))
    yield File(f"/etc/postgresql/{major}/main/conf.d/deploykit.conf", text, actions=(reload,))
    yield Directory(_DROP_IN)
    yield File(f"{_DROP_IN}/deploykit.conf", render("postgres/service.conf.j2"), actions=(REREAD,))
    yield SharedService("postgresql.service")  # stands for all clusters: starts them at boot
    yield SharedService(cluster(major))
    yield Started(major, start)

    limits = sizes(facts, host.apps).connections
    for app in apps:
        yield Role(app.user, major, limits[app.name], app=app.name)
        yield Database(app.database.name, app.user, major, app=app.name)
    for app in apps:
        for name in app.database.extensions:
            yield Extension(app.database.name, name, major, app=app.name)
        for name, value in app.database.settings:
            yield Setting(app.database.name, name, value, major, app=app.name)
