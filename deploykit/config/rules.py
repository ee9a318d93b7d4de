"""What the values of one host or one app mean and must obey, each on its own (see `across` for all together)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from deploykit.agent.secret import HostSecret, Secret
from deploykit.agent.values import Tls
from deploykit.config import models, names, processes, references, services, serving
from deploykit.config.check import Reader, nearest, shown
from deploykit.config.project import AppEntry, DatabaseEntry, HostEntry, Source, VagrantEntry, Wanted
from deploykit.config.toml import Path as Way

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?\]?")
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MACHINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_LOGIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^\s]+")
_GIT = ("https://", "http://", "ssh://", "git://", "file://")


def git_url(text: str) -> bool:
    """Whether a `source` text names a git repository and not a folder."""
    return text.startswith(_GIT) or _SCP.fullmatch(text) is not None


def host(reader: Reader, name: str, table: models.HostTable, way: Way, folder: Path) -> HostEntry:
    """Checks one [hosts.NAME]. `folder` is that of deploykit.toml."""
    if not _HOST_NAME.fullmatch(name):
        reader.add(
            way,
            f"{shown(name)} is no host's name",
            "letters, digits, . _ and -, beginning with a letter or digit",
        )
    address = table.address or name
    if table.address:
        user, _, rest = table.address.rpartition("@")
        if user:
            reader.add((*way, "address"), "an address has no user in it; that is the key `user`", "", f'"{rest}"')
        elif not _ADDRESS.fullmatch(table.address):
            allowed = "an IP address, a host name, or an alias of ~/.ssh/config"
            port = re.fullmatch(r"([A-Za-z0-9_.-]+):\d+", table.address)
            reader.add(
                (*way, "address"),
                f"{shown(table.address)} is no address",
                allowed,
                f'"{port[1]}"' if port else "",
            )
    if table.user and not _LOGIN.fullmatch(table.user):
        reader.add((*way, "user"), f"{shown(table.user)} is no user's name", "letters, digits, . _ and -")
    for index, recipe in enumerate(table.recipes):
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", recipe):
            reader.add((*way, "recipes", index), f"{shown(recipe)} is no module's name", 'such as "firewall"')
    vagrant = _vagrant(reader, name, table, way, folder) if table.vagrant != "" else None
    return HostEntry(name, address.strip("[]"), table.user, table.port, table.roles, table.recipes, vagrant=vagrant)


def _vagrant(reader: Reader, name: str, table: models.HostTable, way: Way, folder: Path) -> VagrantEntry:
    given = table.vagrant
    place, machine = (given.folder, given.machine) if isinstance(given, models.VagrantTable) else (given, name)
    for key in ("address", "port"):
        if getattr(table, key):
            reader.add((*way, key), "this is Vagrant's to say: the host has the key `vagrant`", "one of the two")
    at = (*way, "vagrant")
    if not reader.faulty(at):
        if not place.strip() or not place.isprintable():
            reader.add(at, f"{shown(place)} is no folder", "the folder of a Vagrantfile")
        elif not _MACHINE.fullmatch(machine):
            reader.add(at, f"{shown(machine)} is no machine's name", "letters, digits, . _ and -")
    return VagrantEntry((folder / Path(place).expanduser()).resolve(), machine)


def app(reader: Reader, name: str, table: models.AppTable, way: Way, folder: Path) -> AppEntry:
    """Checks one [apps.NAME]. `folder` is that of deploykit.toml."""
    mistake = names.app_name_mistake(name)
    if mistake:
        guess = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:31]
        meant = guess if guess != name and not names.app_name_mistake(guess) else ""
        reader.add(way, mistake, names.APP_NAME_ALLOWED, meant)
    checked = _App(reader, table, way)
    checked.files()
    checked.processes()
    static, media = checked.served("static"), checked.served("media")
    if isinstance(static, str) and static == media:
        reader.add((*way, "media"), f"{shown(static)} is static's already", "a URL of its own")
    database = checked.database(name)
    stores = services.services(reader, table, way)
    redis = services.redis(table)
    known = references.known(database.kind, redis, static, media, stores, bool(table.files))
    rules = processes.Rules(reader, table, way, known)
    tls = Tls(table.tls.certificate, table.tls.key) if table.tls else None
    requirements = (table.requirements,) if isinstance(table.requirements, str) else table.requirements
    return AppEntry(
        name, checked.source(folder), checked.domains("domains"), checked.domains("redirects"), table.hosts,
        table.root, table.python, requirements, table.settings, table.wsgi, table.asgi, database, redis, static, media,
        rules.web(), checked.env(known), table.health, table.exclude, table.nginx is not False, table.port, table.keep,
        table.command_timeout, tls, services.installed(rules), stores, rules.processes(), rules.schedule(),
        rules.build(), rules.checks(),
        serving.files(rules), serving.site(rules), checked.users(),
    )  # fmt: skip


class _App:
    def __init__(self, reader: Reader, table: models.AppTable, way: Way) -> None:
        self.reader, self.table, self.way = reader, table, way

    def add(self, key: str, what: str, suggestion: str = "", allowed: str = "") -> None:
        allowed = allowed or models.AppTable.__dataclass_fields__[key].metadata["allowed"]
        if not self.reader.faulty((*self.way, key)):
            self.reader.add((*self.way, key), what, allowed, suggestion and f'"{suggestion}"')

    def source(self, folder: Path) -> Source:
        given = self.table.source
        if given is None:
            if not (self.table.settings and (self.table.packages or self.table.install)):
                self.add("source", "this key is missing")
            return Source()
        url, ref = (given.git, given.ref) if isinstance(given, models.Git) else (given, "HEAD")
        if not url.strip() or not url.isprintable():
            self.add("source", f"{shown(url)} is neither a folder nor a git URL")
        elif url.startswith("-") or "::" in url.split("/")[0]:  # "ext::sh -c ..." would run a command
            self.add("source", f"{shown(url)} is refused: git would take it for something else than a URL")
        elif isinstance(given, models.Git) or git_url(url):
            if not re.fullmatch(r"(?![-/.])(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\\x00-\x1f]+(?<![/.])", ref):
                self.add(
                    "source",
                    f"{shown(ref)} is no branch, tag or commit",
                    allowed=models.Git.__dataclass_fields__["ref"].metadata["allowed"],
                )
            if not git_url(url):  # a repository in a folder
                url = str((folder / Path(url).expanduser()).resolve())
            inside = given.folder if isinstance(given, models.Git) else ""
            if inside and processes.outside(inside):
                self.add(
                    "source", f"{shown(inside)} is not inside the repository", allowed="a folder of the repository"
                )
            return Source(git=url, ref=ref, inside=inside.strip("/"))
        return Source(folder=(folder / Path(url).expanduser()).resolve())

    def domains(self, key: str) -> tuple[str, ...]:
        found: list[str] = []
        texts: tuple[str, ...] = getattr(self.table, key)
        if key == "domains" and not texts:
            self.add(key, "an app needs at least one domain")
        for index, text in enumerate(texts):
            domain, mistake, meant = names.domain_mistake(text)
            if mistake:
                self.reader.add(
                    (*self.way, key, index),
                    f"{shown(text)}: {mistake}",
                    "a domain such as blog.example or *.blog.example",
                    meant and f'"{meant}"',
                )
            elif domain in found:
                self.reader.add((*self.way, key, index), f"{domain} is in the list twice")
            found.append(domain)
        return tuple(found)

    def files(self) -> None:
        table = self.table
        for key in ("root", "requirements"):
            value = getattr(table, key)
            for text in (value,) if isinstance(value, str) else value or ():
                if processes.outside(text):
                    self.add(key, f"{shown(text)} is not inside the source")
        if isinstance(table.requirements, tuple):
            alone = [name for name in table.requirements if name.endswith((".toml", ".lock"))]
            if alone and len(table.requirements) > 1:
                self.add("requirements", f"{shown(alone[0])} stands alone, not in a list", alone[0])
        for text in table.exclude:
            if not text.strip() or not text.isprintable():
                self.add("exclude", f"{shown(text)} is no pattern")
        if table.tls:
            for key in ("certificate", "key"):
                text = getattr(table.tls, key)
                if not re.fullmatch(r"/[A-Za-z0-9._/@+-]+", text) or ".." in text.split("/"):
                    self.reader.add(
                        (*self.way, "tls", key),
                        f"{shown(text)} is no absolute path",
                        'a path such as "/etc/ssl/blog.pem", of letters, digits and . _ @ + -',
                    )

    def processes(self) -> None:
        table = self.table
        if table.python and not re.fullmatch(r"3\.\d{1,2}(\.\d{1,2})?", table.python):
            digits = re.search(r"3\.\d{1,2}(\.\d{1,2})?", table.python)
            self.add("python", f"{shown(table.python)} is no version", digits[0] if digits else "")
        if table.settings is not None and not _MODULE.fullmatch(table.settings):
            guess = table.settings.removesuffix(".py").replace("/", ".")
            self.add("settings", f"{shown(table.settings)} is no module", guess if _MODULE.fullmatch(guess) else "")
        for key in ("wsgi", "asgi"):
            text: str | None = getattr(table, key)
            what, guess = processes.application_mistake(text) if text is not None else ("", "")
            if what:
                self.add(key, what, guess)
        if table.wsgi and table.asgi:
            self.add("asgi", "wsgi is set too: an app has one of them", allowed="only one of wsgi and asgi")
        if table.health and not re.fullmatch(r"/[A-Za-z0-9._~/?=&%+-]*", table.health):
            self.add(
                "health",
                f"{shown(table.health)} is no path",
                "" if "://" in table.health else "/" + table.health.strip("/ "),
            )
        if table.port and table.nginx is not False:
            self.add(
                "port",
                "with nginx the app listens on a socket; a port needs nginx = false",
                allowed="only with nginx = false",
            )
        if table.nginx is False:
            if not table.port:
                self.add("port", "nginx = false needs a port")
            if table.tls:
                self.add(
                    "tls",
                    "nginx = false: nobody is there to use the certificate",
                    allowed="only with nginx = true",
                )
            for key in ("static", "media"):
                if getattr(table, key):
                    self.add(key, "nginx = false: nobody is there to serve files", allowed="false, or nginx = true")
            if table.redirects:
                self.add(
                    "redirects",
                    "nginx = false: nobody is there to redirect",
                    allowed="only with nginx = true",
                )
        elif table.redirects and table.domains and table.domains[0].startswith("*."):
            self.add("redirects", "the first of `domains` is a wildcard: there is no one address to redirect to")

    def served(self, key: str) -> str | bool | None:
        value: str | bool | None = getattr(self.table, key)
        if not isinstance(value, str):
            return value
        clean = names.URL_PATH.fullmatch(value)
        if not clean:
            guess = f"/{value.strip('/ ')}/"
            good = names.URL_PATH.fullmatch(guess)
            self.add(key, f"{shown(value)} is no URL path that begins and ends with /", guess if good else "")
            return None
        return value

    def database(self, app: str) -> DatabaseEntry:
        given = self.table.database
        if isinstance(given, models.FromHost | models.FromEnv | models.FromCommand):
            self.known_to_people(given, (*self.way, "database"), "no database's URL can be invented")
            return DatabaseEntry("url", url=self.wanted(given, (*self.way, "database")))
        kind, name = (given.kind, given.name) if isinstance(given, models.DatabaseTable) else (given, "")
        if "://" in kind:
            if "\0" in kind:
                self.add("database", "the URL has a NUL character in it")
            return DatabaseEntry("url", url=Secret(kind))
        if kind not in ("postgres", "sqlite", "none"):
            meant = (
                "postgres" if kind in ("postgresql", "pg", "psql") else nearest(kind, ("postgres", "sqlite", "none"))
            )
            self.add("database", f"{shown(kind)} is no database", meant)
        if name and kind != "postgres":
            self.reader.add(
                (*self.way, "database", "name"), "only a PostgreSQL database has a name", 'kind = "postgres"'
            )
        elif name and (
            not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name)
            or name in names.RESERVED_DATABASES
            or name.startswith("pg_")
        ):
            self.reader.add(
                (*self.way, "database", "name"),
                f"{shown(name)} cannot be a database's name",
                models.DatabaseTable.__dataclass_fields__["name"].metadata["allowed"]
                + ", and not one of PostgreSQL's own",
            )
        table = given if isinstance(given, models.DatabaseTable) else models.DatabaseTable()
        extensions, settings, connections = table.extensions, table.settings, table.connections
        for key, used in (("extensions", extensions), ("settings", settings), ("connections", connections)):
            if used and kind != "postgres":
                self.reader.add((*self.way, "database", key), "only PostgreSQL has them", 'kind = "postgres"')
        for index, text in enumerate(extensions):
            if not re.fullmatch(r"[a-z0-9_-]{1,63}", text):
                self.reader.add((*self.way, "database", "extensions", index), f"{shown(text)} is no extension")
        for key, value in settings.items():
            if not re.fullmatch(r"[a-z_][a-z0-9_.]{0,62}", key) or "\0" in str(value):
                self.reader.add((*self.way, "database", "settings", key), f"{shown(key)} is no setting of PostgreSQL")
        plain = tuple(
            (key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in settings.items()
        )
        return DatabaseEntry(
            kind,
            (name or app.replace("-", "_")) if kind == "postgres" else "",
            extensions=tuple(dict.fromkeys(extensions)),
            settings=plain,
            connections=connections,
        )

    def env(self, known: references.Known) -> dict[str, Wanted]:
        found: dict[str, Wanted] = {}
        made: dict[str, tuple[str, int]] = {}  # by the secret's name: the first variable that lets it be made
        for name, value in self.table.env.items():
            way = (*self.way, "env", name)
            if isinstance(value, models.FromHost) and value.make:
                first, length = made.setdefault(value.secret, (name, value.make))
                if length != value.make:
                    what = f"{first} makes {value.secret} {length} characters long: it is one secret"
                    self.reader.add((*way, "make"), what, "the same number, or another secret", str(length))
            if not _VARIABLE.fullmatch(name):
                guess = re.sub(r"\W", "_", name, flags=re.ASCII)
                meant = guess if _VARIABLE.fullmatch(guess) else ""
                self.reader.add(
                    way,
                    f"{shown(name)} is no variable's name",
                    "letters, digits and _, not beginning with a digit",
                    meant,
                )
            found[name] = self.wanted(value, way)
            if isinstance(value, str):
                if "\0" in value:
                    self.reader.add(way, "the value has a NUL character in it, which no environment can hold")
                references.check(value, known, self._at(way))
        return found

    def users(self) -> dict[str, Wanted]:
        """Who may see the site, with their passwords."""
        table = self.table.nginx
        users = table.basic_auth if isinstance(table, models.NginxTable) else {}
        found: dict[str, Wanted] = {}
        for name, value in users.items():
            way = (*self.way, "nginx", "basic_auth", name)
            self.known_to_people(value, way, "nobody would know a password that the host invents")
            found[name] = self.wanted(value, way)
        return found

    def known_to_people(
        self, value: models.FromHost | models.FromEnv | models.FromCommand, way: Way, what: str
    ) -> None:
        """What somebody has to give, for the host cannot invent it."""
        if isinstance(value, models.FromHost) and value.make:
            self.reader.add((*way, "make"), what, f'{{ secret = "{value.secret}" }}, and `fab secrets set`')

    def _at(self, way: Way) -> Callable[[str, str, str], None]:
        return lambda what, allowed, suggestion: self.reader.add(way, what, allowed, suggestion)

    def wanted(self, value: str | models.FromHost | models.FromEnv | models.FromCommand, way: Way) -> Wanted:
        if self.reader.faulty(way):
            return ""
        if isinstance(value, models.FromHost):
            if not _VARIABLE.fullmatch(value.secret):
                self.reader.add((*way, "secret"), f"{shown(value.secret)} is no secret's name", "letters, digits and _")
            return HostSecret(value.secret, value.make)
        if isinstance(value, models.FromEnv) and not _VARIABLE.fullmatch(value.env):
            self.reader.add((*way, "env"), f"{shown(value.env)} is no variable's name", "letters, digits and _")
        if isinstance(value, models.FromCommand) and (not value.command.strip() or "\0" in value.command):
            self.reader.add((*way, "command"), "this is no command", 'such as "pass show blog/stripe"')
        return value
