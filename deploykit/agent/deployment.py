"""What an app shall run, as a value, and how it is seen on the host. How it gets there is `release.py` and `slots.py`.

A deploy of code is a transaction and not a resource; but it is planned like one, so it has the same two dicts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deploykit.agent import paths, supervisord
from deploykit.agent.configfile import ConfigurationFile
from deploykit.agent.dataclass import dataclass
from deploykit.agent.envfile import EnvFile, plain
from deploykit.agent.resource import Aspect, Failed, HostSecret, NotYet, Resource, Secret, State
from deploykit.agent.values import Build, Check
from deploykit.model import layout

if TYPE_CHECKING:
    from deploykit.agent.visits import Front

SLOTS = ("a", "b")

#: What apps and their processes are called.
NAME = re.compile(r"[a-z][a-z0-9_-]*")

_NOTHING: Mapping[str, Any] = {"live": "", "slots": {}}  # of an app that was never deployed

#: The steps whose commands may write into the release; after them it is sealed.
BUILDING = ("after_checkout", "after_install", "before_collectstatic", "after_collectstatic")


@dataclass(frozen=True)
class Venv:
    """A virtualenv, named by all that decides its contents, so that equal ones are made once."""

    key: str
    uv: str  # path of the uv program
    environment: tuple[tuple[str, str], ...]  # what uv needs to know on this host
    python: str  # version or path that uv understands
    kind: str  # as values.Python.kind
    files: tuple[str, ...]  # relative to the source's top
    extra: tuple[str, ...]  # requirements beside those of the files: the user's, and ours, e.g. gunicorn
    plain: bool = False  # nothing but versions from the index is asked for: it may be shared by apps
    constraints: tuple[str, ...] = ()  # files, relative to the source's top
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    install: tuple[str, ...] = ()  # commands instead of the files
    local: bool = False  # packages out of the source are built, or commands run: in the release's code


@dataclass(frozen=True)
class Health:
    """How a release proves that it works: GET `path` with the app's own host. Times in seconds.

    `strict`: 2xx or 3xx; otherwise anything below 500 but 400 will do (400 is Django's "not in ALLOWED_HOSTS").
    """

    path: str
    host: str
    scheme: str
    strict: bool
    proxy: bool  # whether nginx stands before it: then it is asked there, too, after the switch
    start: float = 60.0  # how long a release may take until it answers
    watch: float = 0.2  # how long it is watched after the switch
    drain: float = 35.0  # how long the old slot may take for the requests it has
    tls: bool = False  # whether nginx itself speaks TLS for it, or a proxy in front of nginx
    visitor: tuple[tuple[str, Secret | HostSecret], ...] = ()  # one whom nginx lets in, if it asks for a password


@dataclass(frozen=True)
class Program:
    """A process of a release beside its main web server. Times in seconds.

    `once`: never two of it, so the old one ends before it begins. `socket`: it is a web server, by that name's socket,
    for `paths`.
    """

    name: str
    once: bool = False
    steady: float = 5.0  # how long it must run before it is trusted
    stop: float = 60.0  # how long it may take to finish what it holds
    socket: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deployment(Resource):
    """One app at one release. `slot_a` and `slot_b` are the same files for either slot: exactly one set is live."""

    late: ClassVar[bool] = True  # after all resources and actions

    release: str
    tree: str
    label: str
    root: str
    venv: Venv
    apt: tuple[str, ...] = ()  # packages of the system that a build of it may need
    slot_a: tuple[Resource, ...]
    slot_b: tuple[Resource, ...]
    programs: tuple[Program, ...] = ()
    health: Health
    checks: tuple[Check, ...] = ()
    database: str  # "postgres", "sqlite", "url", "none"
    database_name: str  # of the local database, or the SQLite file's path
    keep: int
    build: Build = field(default_factory=Build)  # its hooks' `${...}` replaced
    media: bool = True  # whether nginx serves uploads from the app's folder `media`
    command_timeout: float = 3600.0  # seconds for one command of the app's
    public: tuple[str, ...] = ()  # folders of the built code that nginx serves, relative to the source's top

    @property
    def key(self) -> str:
        return f"app {self.app}"

    @property
    def home(self) -> Path:
        """The app's folder."""
        return layout.home(self.app)

    @property
    def folder(self) -> Path:
        """The release's folder: `code`, `static` and `release.json` are in it."""
        return layout.release(self.app, self.release)

    @property
    def code(self) -> Path:
        """The folder of manage.py in the release: the working folder of every process."""
        return self.folder / "code" / self.root if self.root else self.folder / "code"

    @property
    def builds(self) -> bool:
        """Whether commands of the user's, or what builds packages of it, may write into the code until it is sealed."""
        return self.venv.local or any(self.build.commands(step) for step in BUILDING)

    @property
    def configured(self) -> bool:
        """Whether it has configuration files of the user's."""
        return any(isinstance(each, ConfigurationFile) for each in self.slot_a)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """(path in the code, name of the file) of the links to configuration files."""
        found = [each for each in self.slot_a if isinstance(each, ConfigurationFile) and each.link]
        return tuple((each.link, Path(each.path).name) for each in found)

    @property
    def virtualenv(self) -> Path:
        """The virtualenv's folder."""
        return layout.virtualenv(self.app, self.venv.key)

    @property
    def sockets(self) -> tuple[str, ...]:
        """The names of the sockets beside the main one."""
        return tuple(dict.fromkeys(each.socket for each in self.programs if each.socket))

    def front(self) -> Front:
        """How nginx is asked for this app."""
        import base64

        from deploykit.agent.visits import Front  # with HTTP, which nobody needs who only looks

        for name, password in self.health.visitor:
            words = f"{name}:{plain(self.app, password, make=False)}"
            return Front(self.health.tls, Secret("Basic " + base64.b64encode(words.encode()).decode()))
        return Front(self.health.tls)

    def files(self, slot: str) -> tuple[Resource, ...]:
        """The files of a slot: environment, gunicorn's and supervisor's configuration."""
        return self.slot_a if slot == "a" else self.slot_b

    def command(self, text: str, slot: str) -> str:
        """A command as it runs in a slot: a recipe names the folder of configuration files without its slot."""
        return text.replace(str(layout.config_files(self.app, "")), str(layout.config_files(self.app, slot)))

    def environment(self, slot: str, *, make: bool) -> dict[str, str]:
        """The app's variables in the clear, for the commands of a release."""
        return self._env_file(slot).values(make=make)

    def mask(self, slot: str) -> Callable[[str], str]:
        """What takes the secrets out of a program's words, before others look at them."""
        from deploykit.agent import masking

        return masking.text

    def _env_file(self, slot: str) -> EnvFile:
        for resource in self.files(slot):
            if isinstance(resource, EnvFile):
                return resource
        raise Failed(f"{self.key} has no environment file")

    def wanted(self) -> State:
        slot = live(self.app) or "a"
        state: State = {
            "release": self.release,
            "process": "RUNNING",
            **{f"process {each.name}": "RUNNING" for each in self.programs},
            "live": self.release,
            "socket": layout.socket(self.app, slot).name,
            **{f"socket {name}": layout.socket(self.app, slot, name).name for name in self.sockets},
            "boot": boot_text(self.app, slot, self.sockets),
            "environment": layout.environment(self.app, slot).name,
            **({"files": layout.config_files(self.app, slot).name} if self.links else {}),
            "other slot": "",
            "code": "as released",
        }
        for resource in self.files(slot):
            state.update(_named(resource, resource.wanted()))
        return state

    def observe(self) -> State | None:
        slot = live(self.app)
        if slot is None:
            for resource in self.files("a"):
                resource.wanted()  # a secret that nobody gave is told before anything is changed
            return None
        release = running(self.app, slot)
        state: State = {
            "release": release,
            "process": _process(layout.program(self.app, slot), layout.socket(self.app, slot)),
            **{
                f"process {each.name}": _process(
                    layout.program(self.app, slot, each.name),
                    layout.socket(self.app, slot, each.socket) if each.socket else None,
                )
                for each in self.programs
            },
            "live": _link(layout.live_release(self.app)),
            "socket": _link(layout.socket(self.app, "live")),
            **{f"socket {name}": _link(layout.socket(self.app, "live", name)) for name in self.sockets},
            "boot": _text(layout.boot(self.app)),
            "environment": _link(layout.environment(self.app)),
            **({"files": _link(layout.release(self.app, release) / "files")} if self.links else {}),
            "other slot": stray(self.app, slot),
            "code": condition(self.app, release),
        }
        for resource in self.files(slot):
            state.update(_named(resource, resource.observe() or {}))
        return state

    def change(self, observed: State | None) -> None:
        raise Failed(f"{self.key} is deployed by a transaction")


def _named(resource: Resource, state: Mapping[str, Aspect]) -> State:
    name = getattr(resource, "path", resource.key).rpartition("/")[2]
    return {f"{name} {aspect}": value for aspect, value in state.items()}


def _process(program: str, socket: Path | None) -> str:
    try:
        found = supervisord.state(program)
    except NotYet:
        return "supervisor does not run"
    # A process that was started a moment ago counts: it has answered its health check.
    state = "RUNNING" if found == "STARTING" else found
    if state == "RUNNING" and socket and not os.path.exists(socket):
        return "RUNNING without its socket"
    return state


def boot_text(app: str, slot: str, sockets: Iterable[str] = (), folder: str = "") -> str:
    """What the file `layout.boot` says when `slot` is live, with those sockets beside the main one, all in `folder`.

    Raises Failed for a name that would mean more than itself there: root runs what this file says.
    """
    sockets = tuple(sockets)
    for name in (app, *sockets):
        if not NAME.fullmatch(name):
            raise Failed(f"{name!r} of {app} is no name of a socket")
    lines = [
        f"L+ {layout.socket(app, 'live', name)} - - - - {folder}{layout.socket(app, slot, name).name}\n"
        for name in ("", *sorted(sockets))
    ]
    return "# Written by deploykit at the last switch.\n" + "".join(lines)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _link(path: Path) -> str:
    try:
        return os.readlink(path).rpartition("/")[2]
    except OSError:
        return ""


def record(app: str) -> dict[str, Any]:
    """What deploykit remembers of an app: `live`, `slots` (slot to release), `releases` (newest last)."""
    found: dict[str, Any] = paths.read_json(paths.APPS / f"{app}.json", {"live": "", "slots": {}, "releases": []})
    return found


def _known(app: str) -> Mapping[str, Any]:
    """As `record`, for who only looks at it: a look at an app reads its file once, not eight times."""
    found: Mapping[str, Any] = paths.known_json(paths.APPS / f"{app}.json", _NOTHING)
    return found


def live(app: str) -> str | None:
    """The slot that answers: the socket link is the truth; after a reboot, before it is back, what was remembered."""
    name = _link(layout.socket(app, "live")).removesuffix(".sock")
    known = _known(app)
    slot = name if name in SLOTS else str(known["live"])
    return slot if slot in SLOTS and slot in known["slots"] else None


def running(app: str, slot: str) -> str:
    """The release that runs in a slot."""
    return str(_known(app)["slots"].get(slot, ""))


def other(slot: str) -> str:
    """The slot that is not `slot`."""
    return "b" if slot == "a" else "a"


def stray(app: str, slot: str) -> str:
    """What is left of the other slot by an interrupted deploy, "" when nothing is."""
    rest = other(slot)
    if layout.supervisor(app, rest).exists():
        return f"slot {rest} is left from an interrupted deploy"
    return ""


def condition(app: str, release: str) -> str:
    """ "as released", or what is wrong with the release's files, by size and time of each (contents are not read)."""
    folder = layout.release(app, release)
    try:
        kept = paths.read_json(folder / "release.json", None)
    except ValueError:
        kept = None
    if kept is None:
        return "incomplete"
    if not whole(layout.virtualenv(app, kept["venv"])):
        return "its virtualenv is missing"
    return (
        _altered(f"{folder}/code", kept["seals"])
        or misled(f"{folder}/code", kept.get("links", []))
        or _altered(f"{folder}/static", kept.get("static", []))
        or _altered(f"{folder}/public", kept.get("public", []))
        or "as released"
    )


def whole(venv: str | Path) -> bool:
    """Whether a virtualenv was made to its end, and what its `lib` leads to is there."""
    return os.path.exists(f"{venv}/.complete") and os.path.exists(f"{venv}/lib")


def misled(top: str, links: Iterable[Iterable[str]]) -> str:
    """What is wrong with the links to configuration files, "" when they lead where they did."""
    for path, target in links:
        try:
            found = os.readlink(f"{top}/{path}")
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError:
            found = ""
        if found != target:
            return f"{path} was altered on the host"
    return ""


def _altered(top: str, seals: list[tuple[str, int, int]]) -> str:
    if not seals:
        return ""
    path = ""
    stat = os.stat  # thirty apps have five thousand files
    try:
        folder = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return f"{seals[0][0]} is missing"
    try:
        for path, size, changed in seals:
            status = stat(path, dir_fd=folder, follow_symlinks=False)
            if status.st_size != size or status.st_mtime_ns != changed:
                return f"{path} was altered on the host"
    except OSError:
        return f"{path} is missing"
    finally:
        os.close(folder)
    return ""
