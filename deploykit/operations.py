"""What the commands do, host by host: read the sources, build the manifest, ask the agent. No words, no terminal."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from deploykit import cache, made, memory, source
from deploykit.agent.resource import Conflict, Note
from deploykit.agent.values import Facts, Host
from deploykit.bundle import bundle
from deploykit.config.project import HostEntry, Project
from deploykit.detect import Detected, Tree
from deploykit.errors import DeploykitError
from deploykit.model import events
from deploykit.model.events import Event
from deploykit.opening import Ahead, Opening
from deploykit.remote import Remote
from deploykit.transport import Target


class Show(Protocol):
    """Who is told what happens, and asked. Called from one thread per host."""

    def event(self, host: str, event: Event) -> None:
        """Something happened on a host."""

    def host_key(self, host: str, kind: str, fingerprint: str) -> bool:
        """Whether an unknown host key is the right one."""

    def password(self, question: str) -> str:
        """A password, not echoed."""


@dataclass
class Outcome:
    """How a host came out. `events` are those that ended it or tell a result."""

    host: str
    ok: bool = False
    empty: bool = False
    changed: int = 0
    plan: Event = field(default_factory=dict)
    deployed: list[Event] = field(default_factory=list)
    answer: Event = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    asides: tuple[Note, ...] = ()  # what only those who want to know all want to know
    told: bool = False  # whether the host has said what went wrong
    error: DeploykitError | None = None


#: What the host says to some requests beside how they ended.
_ANSWERS = {"status": "status", "secrets": "secrets", "leave": "left", "restart": "restarted"}


def target(entry: HostEntry) -> Target:
    """Where a host is reached; a Vagrant machine, and a sandbox of that name, know their own address and keys."""
    from deploykit import sandbox, vagrant

    if entry.vagrant is not None:
        said = vagrant.ssh_config(entry.vagrant.folder, entry.vagrant.machine, f"host {entry.name}")
        return Target(entry.name, entry.vagrant.machine, entry.user, ssh_config=said)
    found = sandbox.find(entry.name) if not entry.user else None
    if found is not None and entry.address in (entry.name, found.address, ""):
        if not found.running:
            raise DeploykitError(
                "the sandbox is not running", entry.name, f"start it with: fab sandbox up --name {entry.name}"
            )
        return Target(entry.name, found.address, found.user, found.port, found.identity, found.host_key)
    return Target(entry.name, entry.address, entry.user, entry.port)


def sources(project: Project, entry: HostEntry) -> dict[str, source.Tree]:
    """The source of every app of a host."""
    return source.read_all({app.name: (app.source, app.exclude) for app in project.apps_of(entry)})


class Session:
    """One host: its requests go over one connection, which `ahead` may have begun to open."""

    def __init__(self, project: Project, entry: HostEntry, show: Show, ahead: Ahead | None = None) -> None:
        self._project = project
        self._entry = entry
        self._show = show
        self._trees: dict[str, source.Tree] = {}
        self._detected: dict[str, Detected] = {}
        where = target(entry)
        self._ahead = ahead
        self._opening = ahead.take(entry.name, where) if ahead else Opening(where)
        ssh = self._opening.ssh
        # One for all requests, so that a password is asked for once.
        self._bundle = bundle(project.folder)
        self._agent = Remote(entry.name, ssh, self._bundle, show.password, self._trees)
        self._command = self._agent.command()
        self._facts_file = _facts_file(where, ssh.user)

    def converge(self, operation: str, only: Sequence[str] | None) -> Outcome:
        """Plans or applies the project on this host. `only` names the apps whose code is meant."""
        outcome = Outcome(self._entry.name)
        # What can be wrong with the file and the sources is found before the host is asked for anything.
        self._trees.update(sources(self._project, self._entry))
        host = self._host()
        with contextlib.closing(self._opening):
            self._opening.begin(self._command)  # meanwhile the manifest is made
            facts = self._known_facts()
            manifest = None
            if facts is not None:
                try:
                    manifest = self._manifest(facts, host)
                except DeploykitError as error:
                    if isinstance(error.__context__, Conflict):
                        raise
                    facts = None  # the host may be another than it was: only what it says now counts
            self._connect()
            for _ in range(3):
                if facts is None or manifest is None:
                    facts = self._ask_facts()
                    manifest = self._manifest(facts, host)
                request = {
                    "operation": operation,
                    "facts": asdict(facts),
                    "digest": manifest.digest + ":" + ",".join(only or ()),
                    "only": list(only) if only is not None else None,
                    "commit": _commit(self._project.folder),
                }
                facts = None
                for event in self._events(request, manifest.text):
                    if event["event"] == "facts":
                        facts = self._keep_facts(event)
                        manifest = self._manifest(facts, host)
                    else:
                        self._take(event, outcome, operation)
                if facts is None:
                    outcome.notes, outcome.asides = manifest.notes, manifest.asides
                    self._remember()
                    return outcome
        raise DeploykitError("the host says of itself something else each time", f"host {self._entry.name}")

    def _connect(self) -> None:
        self._opening.allow(self._show.host_key)
        self._agent.take(self._opening.wait(self._command))

    def _remember(self) -> None:
        if self._ahead is not None:
            self._ahead.remember(self._entry.name, self._opening.target, self._command)

    def ask(self, request: Event) -> Outcome:
        """Any other request."""
        outcome = Outcome(self._entry.name)
        with contextlib.closing(self._opening):
            self._connect()
            for event in self._events({"digest": "", **request}):
                self._take(event, outcome, request["operation"])
            self._remember()
        return outcome

    def _events(self, request: Event, text: str = "") -> Iterator[Event]:
        yield from self._agent.events({"who": _who(), **request}, text)

    def _take(self, event: Event, outcome: Outcome, operation: str) -> None:
        kind = event["event"]
        if kind == "plan":
            outcome.plan = event
        elif kind == "deployed":
            if event["app"] in self._project.names:
                outcome.deployed.append(event)
        elif kind == _ANSWERS.get(operation):
            outcome.answer = event
        elif kind == "error":
            outcome.told = True
        elif kind == "facts":  # the answer to another question
            raise self._unanswered()
        elif kind == "end":
            self._check(event, outcome, operation)
            outcome.ok = event["ok"]
            outcome.empty = event.get("empty", False)
            outcome.changed = event.get("changed", 0)
        self._show.event(self._entry.name, event)

    def _check(self, end: Event, outcome: Outcome, operation: str) -> None:
        """A host that says that all is well has said what it was asked for, and one that failed has said why."""
        answer = outcome.plan if operation == "plan" else outcome.answer
        lacks = operation == "plan" or operation in _ANSWERS
        if (end["ok"] and lacks and not answer) or not (end["ok"] or outcome.told):
            raise self._unanswered()

    def _unanswered(self) -> DeploykitError:
        where = f"host {self._entry.name}"
        return DeploykitError("the agent ended without an answer", where, "try again; if it happens again, report it")

    def _host(self) -> Host:
        from deploykit.config import complete

        return complete(self._project, self._entry, self._trees, look=self._look)

    def _look(self, tree: Tree, root: str | None, settings: str | None, name: str) -> Detected:
        found = self._detected[name] = memory.detect(tree, root, settings, name)
        return found

    def _manifest(self, facts: Facts, host: Host) -> made.Made:
        from deploykit.detect import check_python

        for app in host.apps:
            if not app.python.version:
                check_python(app.python.requires, facts.python, f"[apps.{app.name}] on host {self._entry.name}")
        return made.make(host, facts, self._project.folder, self._bundle.sha, self._detected)

    def _known_facts(self) -> Facts | None:
        try:
            return Facts(**events.facts(json.loads(self._facts_file.read_text()), "facts"))
        except (OSError, ValueError, RecursionError):
            return None

    def _ask_facts(self) -> Facts:
        for event in self._events({"operation": "facts", "digest": ""}):
            if event["event"] == "facts":
                return self._keep_facts(event)
        raise DeploykitError("the host does not say what it is", f"host {self._entry.name}")

    def _keep_facts(self, event: Event) -> Facts:
        """Kept, so that the next manifest is right at once; a stale one costs one exec, never a wrong deploy."""
        cache.keep(self._facts_file, json.dumps(event["facts"]))
        return Facts(**event["facts"])


def _facts_file(where: Target, user: str) -> Path:
    name = hashlib.sha256(f"{user}@{where.address}:{where.port}".encode()).hexdigest()[:24]
    return cache.FOLDER / "facts" / f"{name}.json"


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _commit(folder: Path) -> str:
    """The commit of the folder of deploykit.toml, for the journal: read from git's own files, no process."""
    for place in (folder, *folder.parents):
        head = place / ".git" / "HEAD"
        try:
            text = head.read_text().strip()
            if not text.startswith("ref: "):
                return text[:12]
            return (place / ".git" / text.removeprefix("ref: ")).read_text().strip()[:12]
        except (OSError, ValueError):
            continue
    return ""


def each(entries: Sequence[HostEntry], work: Callable[[HostEntry], Outcome]) -> list[Outcome]:
    """Runs `work` for every host, side by side. What goes wrong on one host is its outcome, not everybody's."""

    def one(entry: HostEntry) -> Outcome:
        try:
            return work(entry)
        except DeploykitError as error:
            if entry.meant:
                error.todo = f"did you mean: {entry.meant}\n{error.todo}"
            return Outcome(entry.name, error=error)

    if len(entries) == 1:
        return [one(entries[0])]
    with ThreadPoolExecutor(max_workers=min(len(entries), 16)) as pool:
        return list(pool.map(one, entries))


def each_apart(entries: Sequence[HostEntry], work: Callable[[HostEntry], Outcome]) -> list[Outcome]:
    """As `each`, for what may go on without end: Ctrl-C is heard at once, and nobody is waited for then."""
    found: dict[str, Outcome] = {}

    def one(entry: HostEntry) -> None:
        found[entry.name] = each([entry], work)[0]

    threads = [threading.Thread(target=one, args=(entry,), daemon=True) for entry in entries]
    if len(threads) == 1:
        return each(entries, work)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[entry.name] for entry in entries if entry.name in found]


__all__ = ["Outcome", "Session", "Show", "each", "each_apart", "sources", "target"]
