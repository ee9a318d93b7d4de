"""Project and sources -> `values.Host`: nothing is left to find out. Pure: no I/O but the trees' `read`."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from deploykit import detect
from deploykit.agent import values
from deploykit.agent.secret import HostSecret, Secret
from deploykit.config import interpreters, names, packages
from deploykit.config.check import shown
from deploykit.config.project import AppEntry, HostEntry, Project, Wanted
from deploykit.config.toml import located
from deploykit.errors import ConfigError, DeploykitError, Problem


def complete(
    project: Project,
    entry: HostEntry,
    trees: Mapping[str, detect.Tree],
    apps: Collection[str] | None = None,
    look: Callable[..., detect.Detected] | None = None,
) -> values.Host:
    """The host with its apps; `apps` limits them to these names. `look` stands for `detect.detect`.

    `project` comes from `resolve`; `trees` has the source of each app of this host, by name. Raises ConfigError with
    what is missing in all sources at once, KeyError for an app without a tree.
    """
    problems: list[Problem] = []
    done: list[values.App] = []
    for app in project.apps_of(entry):
        if apps is None or app.name in apps:
            try:
                done.append(_App(app, trees[app.name], look or detect.detect).complete())
            except ConfigError as error:
                problems += error.problems
            except DeploykitError as error:
                problems.append(Problem(f"apps.{app.name}", "", 0, error.what, error.todo))
    if problems:
        raise ConfigError(located(problems, project.file), str(project.file))
    return values.Host(entry.name, entry.address, entry.user, entry.port, entry.roles, tuple(done), entry.recipes)


class _App:
    def __init__(self, entry: AppEntry, tree: detect.Tree, look: Callable[..., detect.Detected]) -> None:
        self.entry, self.tree, self.look = entry, tree, look
        self.problems: list[Problem] = []

    def complete(self) -> values.App:
        entry = self.entry
        root = None if entry.root is None else posixpath.normpath(entry.root).removeprefix(".").strip("/")
        if root is not None and posixpath.join(root, "manage.py") not in self.tree.paths:
            if not entry.settings:
                self.missing("root", f"there is no manage.py in {entry.root}", "the folder of manage.py in the source")
            elif root and not any(path.startswith(f"{root}/") for path in self.tree.paths):
                self.missing("root", f"there is no folder {entry.root}", "the folder of manage.py in the source")
        found = self.look(self.tree, root, entry.settings, entry.name)
        settings = entry.settings or found.settings
        if not settings:
            place = posixpath.join(found.root, "manage.py")
            self.missing(
                "settings",
                f"no settings module was found: {place} names none that is there",
                'settings = "config.settings"',
            )
        web = self.web(found)
        python = self.python(found)
        static = self.served("static", True if entry.static is None else entry.static, found.static_url)
        media = self.served("media", found.media if entry.media is None else entry.media, found.media_url)
        if self.problems:
            raise ConfigError(self.problems)
        database = values.Database(
            entry.database.kind,
            entry.database.name,
            _secret(entry.database.url),
            entry.database.extensions,
            entry.database.settings,
            entry.database.connections,
        )
        users = tuple((name, _password(value)) for name, value in entry.users.items())
        return values.App(
            name=entry.name,
            domains=entry.domains,
            code=values.Code(self.tree.digest, found.root, self.tree.label),
            settings=settings,
            redirects=entry.redirects,
            python=python,
            database=database,
            redis=entry.redis,
            static=static,
            media=media,
            web=web,
            env={name: _value(value) for name, value in entry.env.items()},
            health=entry.health,
            tls=entry.tls,
            nginx=entry.nginx,
            port=entry.port,
            keep=entry.keep,
            command_timeout=entry.command_timeout,
            services=entry.services,
            processes=entry.processes,
            schedule=entry.schedule,
            build=entry.build,
            checks=entry.checks,
            files=entry.files,
            site=replace(entry.site, users=users),
            apt=entry.installed.apt,
        )

    def missing(self, key: str, what: str, allowed: str) -> None:
        where = self.tree.folder or self.entry.source
        self.problems.append(Problem(f"apps.{self.entry.name}", key, 0, f"{what} ({where})", allowed))

    def web(self, found: detect.Detected) -> values.Web:
        web = self.entry.web
        if web.application:
            return web
        for kind, given in (("wsgi", found.wsgi), ("asgi", found.asgi)):
            if given and not names.APPLICATION.fullmatch(given):  # the source's word, on a command line
                what = f"the settings name {shown(given)}, which is not the name of an application"
                self.missing(kind, what, f'{kind} = "config.{kind}:application"')
                return web
        if found.wsgi:
            return replace(web, interface="wsgi", application=found.wsgi)
        if not found.asgi:
            self.missing("wsgi", "neither wsgi.py nor asgi.py was found", 'wsgi = "config.wsgi:application"')
        return replace(web, interface="asgi", application=found.asgi)

    def python(self, found: detect.Detected) -> values.Python:
        entry = self.entry
        files = found.requirements if entry.requirements is None else entry.requirements
        if not files and entry.requirements is None and not (entry.installed.packages or entry.installed.commands):
            pipfile = any(posixpath.basename(path) == "Pipfile" for path in self.tree.paths)
            rest = "; a Pipfile is there, but not what `pipenv lock` makes of it" if pipfile else ""
            self.missing(
                "requirements",
                f"neither a requirements.txt, a lock file nor pyproject.toml says what to install{rest}",
                'requirements = "requirements.txt", or packages = ["django"]',
            )
        try:
            python = packages.python(self.tree, entry.python, files, entry.installed, found.root)
        except packages.Mistake as mistake:
            self.missing(mistake.key, mistake.what, mistake.allowed)
            return values.Python()
        folders = (*map(posixpath.dirname, python.files), found.root, "")
        wanted = interpreters.required(self.tree, folders)
        if entry.python:
            try:
                detect.check_python(wanted, entry.python, "")
            except DeploykitError as error:
                self.problems.append(Problem(f"apps.{entry.name}", "python", 0, error.what, wanted))
        return replace(python, requires=wanted, hint=interpreters.hinted(self.tree, folders))

    def served(self, kind: str, wanted: str | bool, literal: str | None) -> values.Served | None:
        """What nginx serves: nothing that is on another machine (a CDN). Django reads "static/" as "/static/"."""
        if isinstance(wanted, str):
            return values.Served(wanted)
        if not wanted or (literal and ("://" in literal or literal.startswith("//"))):
            return None
        clean = (literal or "").strip("/")
        url = f"/{clean}/" if clean else f"/{kind}/"
        if not names.URL_PATH.fullmatch(url):  # it is the source's word, and nginx's configuration has it
            what = f"the settings have {kind.upper()}_URL = {shown(literal)}, which nginx cannot serve"
            self.missing(kind, what, f'a path such as {kind} = "/{kind}/"')
            return None
        return values.Served(url)


def _value(value: Wanted) -> values.Value:
    assert isinstance(value, str | Secret | HostSecret), "complete() is called with what resolve() returned"
    return value


def _secret(value: Wanted | None) -> Secret | HostSecret | None:
    assert value is None or isinstance(value, Secret | HostSecret), "complete() is called with what resolve() returned"
    return value


def _password(value: Wanted) -> Secret | HostSecret:
    assert isinstance(value, Secret | HostSecret), "complete() is called with what resolve() returned"
    return value
