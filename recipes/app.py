"""An app's code: which release shall be live, and the files each of its two slots needs. The agent makes it so."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from deploykit.agent.deployment import SLOTS, Deployment, Health, Venv
from deploykit.agent.envfile import EnvFile
from deploykit.agent.resource import HostSecret, Note, Render, Resource, Secret
from deploykit.agent.resources import Directory, File
from deploykit.agent.values import App, Check, Facts, Host, Value
from deploykit.model import layout
from deploykit.recipes import build, files, programs, services
from deploykit.recipes.programs import DAPHNE, IN_APP, WITH_ENV
from deploykit.recipes.python import UV, UV_ENVIRONMENT
from deploykit.recipes.replacing import replaced
from deploykit.recipes.sizing import sizes


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """What all apps share, then each app's deployment."""
    if not host.apps:
        return
    yield Directory("/usr/local/lib/deploykit")
    yield File(WITH_ENV, render("app/with-env.sh.j2"), mode=0o755)
    yield File(IN_APP, render("app/in-app.sh.j2"), mode=0o755)
    yield File(str(layout.launcher()), render("app/launch"), mode=0o755)
    webs = [web for app in host.apps for web in (app.web, *(each.web for each in app.processes)) if web]
    if any(web.server == "daphne" for web in webs):
        yield File(DAPHNE, render("app/run-daphne"))
    yield Directory("/var/log/deploykit", group="adm", mode=0o750)  # an app's words are not for the other apps
    workers = sizes(facts, host.apps).workers
    for app in host.apps:
        yield deployment(app, facts, render, workers[app.name])


def notes(host: Host, facts: Facts) -> Iterator[Note]:
    """How the host's memory is shared among its apps, and what does not fit."""
    if not host.apps:
        return
    shared = sizes(facts, host.apps)
    by_count: dict[int, list[str]] = {}
    for name, count in shared.workers.items():
        by_count.setdefault(count, []).append(name)
    each = "; ".join(
        f"{count} web worker{'s' if count != 1 else ''} for {', '.join(names)}"
        for count, names in sorted(by_count.items())
    )
    parts = [each]
    if any(app.database.kind == "postgres" for app in host.apps):
        parts.append(f"PostgreSQL {shared.postgres.shared_buffers} MiB of shared buffers")
    for app in host.apps:
        sized = [(store, shared.stores[app.name, store.name]) for store in app.stores if store.kind != "rabbitmq"]
        parts += [f"{services.called(app, store)} at most {size} MiB" for store, size in sized]
    yield Note(f"{facts.memory} MiB of memory: {'; '.join(parts)}; about {shared.needed} MiB at the busiest")
    for warning in shared.warnings:
        yield Note(warning, warning=True)


def deployment(app: App, facts: Facts, render: Render, workers: int) -> Deployment:
    """One app at the release that its source, requirements and settings make."""
    # Of no release and no slot: so what decides a release's name does not depend on it.
    neutral = environment(app, "", "", ""), references(app, "", "")
    made = (app.code.digest, app.code.root, app.settings, *build.decides(app, *neutral, render))
    venv = _venv(app, facts, *made)
    release = _name(*made, venv.key)
    folder = f"{app.home}/releases/{release}"
    names = references(app, release)
    venv = replace(venv, install=tuple(programs.command(app, "of install", each, names) for each in venv.install))
    database_name = sqlite_path(app) if app.database.kind == "sqlite" else app.database.name
    return Deployment(
        app=app.name,
        release=release,
        tree=app.code.digest,
        label=app.code.label,
        root=app.code.root,
        venv=venv,
        apt=app.apt,
        slot_a=_slot(app, "a", folder, venv, release, render, workers),
        slot_b=_slot(app, "b", folder, venv, release, render, workers),
        programs=programs.programs(app),
        health=_health(app),
        checks=tuple(_check(app, each, number, names) for number, each in enumerate(app.checks, 1)),
        database=app.database.kind,
        database_name=database_name,
        keep=app.keep,
        command_timeout=app.command_timeout,
        build=build.build(app, names),
        public=build.public(app),
        media=app.media is not None,
    )


#: What each server needs from the index, when the project does not ask for it itself: a requirement without a version
#: leaves the project's own as it is. uvicorn has no WebSockets without a package for them:
#: https://www.uvicorn.org/installation/
_SERVERS = {"gunicorn": ("gunicorn",), "uvicorn": ("uvicorn", "websockets"), "daphne": ("daphne",)}

#: Variables of the app's that decide what is built and where it comes from. (Of commands, any of them may.)
_BUILDING = re.compile(r"(UV|PIP|POETRY|PIPENV|SETUPTOOLS|CARGO|NPM)_.*|(C|CXX|CPP|LD|RUST)FLAGS|CC|CXX|LD")


def _venv(app: App, facts: Facts, *made: str) -> Venv:
    """The virtualenv of a release that is made of `made`. Its key has in it all that decides what is installed."""
    asked = app.python
    webs = [app.web, *(each.web for each in app.processes if each.web)]
    servers = [name for web in webs for name in _SERVERS[web.server]]
    servers += [
        name
        for web in webs
        if web.server == "gunicorn" and web.interface == "asgi"
        for name in ("uvicorn-worker", "websockets")
    ]
    extra = tuple(dict.fromkeys((*asked.packages, *servers)))
    python = asked.version or "/usr/bin/python3"
    # Of the system's own only the minor version counts: a security update must not rebuild every virtualenv.
    version = asked.version or ".".join(facts.python.split(".")[:2])
    # Of a secret only the name: a new password of an index changes nothing that it gives.
    building = {
        name: value if isinstance(value, str) else ""
        for name, value in app.env.items()
        if asked.kind == "commands" or _BUILDING.fullmatch(name)
    }
    # What leads into a release, or is built from files that a hook may have made there, is that release's alone.
    alone = asked.tied or (asked.local and bool(app.build.commands("after_checkout")))
    key = _name(
        *(asked.digest, version, facts.system, facts.version, facts.architecture),
        *(json.dumps(extra), json.dumps(sorted(app.apt)), json.dumps(building, sort_keys=True)),
        *(made if alone else ()),
    )
    return Venv(
        key=key,
        uv=UV,
        environment=(*UV_ENVIRONMENT.items(), *_indexes(app)),
        python=python,
        kind=asked.kind,
        files=asked.files,
        extra=extra,
        plain=asked.plain and not building,
        constraints=asked.constraints,
        extras=asked.extras,
        groups=asked.groups,
        install=asked.install,
        local=asked.local,
    )


def _indexes(app: App) -> Iterator[tuple[str, str]]:
    """Where packages come from, for uv, and for pip that commands may call: it wins over what the requirements say."""
    if app.python.index:
        yield "UV_DEFAULT_INDEX", app.python.index
        yield "PIP_INDEX_URL", app.python.index
    if app.python.extra_indexes:
        yield "UV_INDEX", " ".join(app.python.extra_indexes)
        yield "PIP_EXTRA_INDEX_URL", " ".join(app.python.extra_indexes)


def _name(*parts: str) -> str:
    """A short name for what is decided by `parts`: 48 bits, far more than one host has releases."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _slot(
    app: App, slot: str, folder: str, venv: Venv, release: str, render: Render, workers: int
) -> tuple[Resource, ...]:
    assert slot in SLOTS
    place = f"{app.home}/venvs/{venv.key}"
    env = environment(app, release, slot, place)
    names = references(app, release, slot)
    return (
        EnvFile(path=f"/etc/deploykit/{app.name}.{slot}.env", variables=tuple(env.items()), app=app.name),
        *files.files(app, slot, env, names, render),
        *programs.files(app, slot, folder, place, names, render, workers),
    )


def _check(app: App, check: Check, number: int, names: Mapping[str, Value]) -> Check:
    """The check with the site's own host and scheme, and its command's references replaced."""
    site = _health(app)
    command = programs.command(app, f"of check {number}", check.command, names) if check.command else ""
    return replace(check, host=check.host or site.host, scheme=check.scheme or site.scheme, command=command)


def _health(app: App) -> Health:
    domain = next((each for each in app.domains if not each.startswith("*")), app.domains[0].replace("*", "www", 1))
    return Health(
        path=app.health or "/",
        host=domain,
        # Proxies in front of nginx are there for TLS: asked by http, an app that wants it would only say where to go.
        scheme="https" if app.tls or app.site.proxies else "http",
        strict=bool(app.health),
        proxy=app.nginx,
        drain=app.web.timeout + 5.0,
        start=float(app.web.start),
        tls=app.tls is not None,
        visitor=app.site.users[:1],
    )


def sqlite_path(app: App) -> str:
    """The file of an app whose database is SQLite."""
    return f"{app.home}/data/db.sqlite3"


def environment(app: App, release: str, slot: str, venv: str) -> dict[str, Value]:
    """Every variable of an app: ours, then the user's, which win. `${...}` is replaced in the user's literal values.

    Web servers, workers, schedules, hooks, builds and commands by hand all have this one, and nothing else.
    """
    names = references(app, release, slot)
    found: dict[str, Value] = {
        "HOME": f"{app.home}/home",
        "USER": app.user,
        "LOGNAME": app.user,
        "DJANGO_SETTINGS_MODULE": app.settings,
        "SECRET_KEY": HostSecret("SECRET_KEY", make=50),
        "ALLOWED_HOSTS": names_as_text(names, "app.domains"),
        "CSRF_TRUSTED_ORIGINS": ",".join(
            f"{scheme}://{domain}"
            for domain in app.domains
            for scheme in (("https",) if app.tls else ("http", "https"))
        ),
        "STATIC_ROOT": names_as_text(names, "static.root"),
        "MEDIA_ROOT": names_as_text(names, "media.root"),
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
    }
    for part in ("url", "host", "port", "name", "user", "password"):
        if f"database.{part}" in names:
            found[f"DATABASE_{part.upper()}"] = names[f"database.{part}"]
    if app.database.kind == "postgres":
        # So that psql, pg_dump and a driver that is told nothing find the database, too.
        found |= {"PGHOST": names["database.host"], "PGUSER": app.user, "PGDATABASE": app.database.name}
    found |= services.environment(app, names)
    # What the host invents may go by a name of the project's, too: DJANGO_SECRET_KEY = { secret = "SECRET_KEY" }.
    invented = {each.name: each for name, each in found.items() if isinstance(each, HostSecret) and name not in app.env}
    invented |= {each.name: each for each in app.env.values() if isinstance(each, HostSecret) and each.make}
    found |= {name: replaced(value, names) if isinstance(value, str) else value for name, value in app.env.items()}
    found = {
        name: invented.get(value.name, value) if isinstance(value, HostSecret) else value
        for name, value in found.items()
    }
    if files.on_pythonpath(app):
        theirs = found.get("PYTHONPATH", "")
        place = names_as_text(names, "files.dir")
        found["PYTHONPATH"] = f"{place}:{theirs}" if theirs and isinstance(theirs, str) else place
    path = found.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    found["PATH"] = f"{venv}/bin:{path}" if isinstance(path, str) else path
    found["VIRTUAL_ENV"] = venv
    found["DEPLOYKIT_CODE"] = f"{app.home}/releases/{release}/code/{app.code.root}".rstrip("/")
    found["DEPLOYKIT_RUN"] = f"/etc/deploykit/{app.name}.{slot}.run"
    found["DEPLOYKIT_RELEASE"] = release  # by this a web process proves which release it is
    return found


def names_as_text(names: Mapping[str, Value], name: str) -> str:
    """A reference that is plain text always."""
    value = names[name]
    assert isinstance(value, str)
    return value


def references(app: App, release: str, slot: str = "") -> dict[str, Value]:
    """What `${...}` may stand for in this app's environment."""
    found: dict[str, Value] = {
        "app.name": app.name,
        "app.user": app.user,
        "app.home": app.home,
        "app.domain": app.domains[0],
        "app.domains": ",".join(_allowed(domain) for domain in (*app.domains, *app.redirects)),
        "data.dir": f"{app.home}/data",
        "files.dir": files.folder(app, slot),
        "static.root": f"{app.home}/releases/{release}/static",
        "static.url": app.static.url if app.static else "/static/",
        "media.root": f"{app.home}/media",
        "media.url": app.media.url if app.media else "/media/",
    }
    found |= {f"database.{part}": value for part, value in _database(app).items()}
    return found | services.references(app)


def _allowed(domain: str) -> str:
    return domain.removeprefix("*")  # Django writes "*.blog.example" as ".blog.example"


def _database(app: App) -> dict[str, Value]:
    kind, name = app.database.kind, app.database.name
    if kind == "postgres":
        # No host in the URL: drivers then take the socket of the system's libpq, and dj-database-url, django-environ
        # and SQLAlchemy all read it alike (a percent-encoded folder as host is read by some of them only).
        url = f"postgresql://{app.user}@/{name}"
        return {
            "url": url,
            "host": "/var/run/postgresql",
            "port": "",
            "name": name,
            "user": app.user,
            "password": "",
        }
    if kind == "sqlite":
        return {"url": f"sqlite:///{sqlite_path(app)}", "name": sqlite_path(app)}
    if kind == "url" and isinstance(app.database.url, Secret):
        parts = urlsplit(app.database.url.reveal())
        return {
            "url": app.database.url,
            "host": parts.hostname or "",
            "port": str(parts.port or ""),
            "name": unquote(parts.path.lstrip("/")),
            "user": unquote(parts.username or ""),
            "password": Secret(unquote(parts.password or "")),
        }
    if kind == "url" and app.database.url is not None:
        return {"url": app.database.url}
    return {}
