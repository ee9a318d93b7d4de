"""The contract of a resource: one idempotent thing on a host, a frozen value with one home.

    @dataclass(frozen=True)
    class Link(Resource):
        path: str
        target: str

        @property
        def key(self) -> str: return f"link {self.path}"
        def wanted(self) -> State: return {"target": self.target}
        def observe(self) -> State | None: ...
        def change(self, observed: State | None) -> None: ...
        def remove(self) -> None: ...

The engine compares `wanted()` with `observe()`, name by name; a resource never decides whether it must change.
Learnt from bundlewrap's items (two dicts, read again after the fix) and mgmt's contracts.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from deploykit.agent import secret
from deploykit.agent.dataclass import dataclass
from deploykit.agent.secret import HostSecret, Joined, Secret

#: One aspect of a resource: a number, a text, a secret, a flag, or a tuple of them.
Aspect = str | int | bool | None | Secret | tuple[str, ...]
State = dict[str, Aspect]


class NotYet(Exception):
    """The host cannot tell yet (psql is not installed): it will after earlier resources have been changed."""


class Failed(Exception):
    """A change could not be made. Carries what a person needs: what happened, the detail, what to do.

    `app`: the app whose failure it is; the other apps' changes are made all the same. "": the host's own.
    """

    def __init__(self, what: str, detail: str = "", todo: str = "", app: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.detail = detail
        self.todo = todo
        self.app = app


class Conflict(Exception):
    """The same key with different values, from two recipes."""

    def __init__(self, key: str, first: str, second: str) -> None:
        super().__init__(f"{key}: recipe {first} and recipe {second} want different things of it")
        self.key, self.first, self.second = key, first, second


@dataclass(frozen=True)
class Action:
    """What must happen once after changes, e.g. reload nginx. Survives an interruption until it was done.

    `check` (e.g. `nginx -t`) runs first; if it fails, the files changed for this action are put back as they were.
    Each command is an argument list, run as root. `replaces` is the title of processes that it takes the place of, as
    `ps` shows it: it is done when none that had this title before has it still. (nginx's old workers go on answering
    for a moment after a reload, and then say that they are shutting down.)
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    check: tuple[str, ...] = ()
    needs: str = ""  # key of a resource; when that has left the manifest, there is nothing to do any more
    replaces: str = ""


@dataclass(frozen=True, kw_only=True)
class Resource(ABC):
    """The base of all resources. Fields are plain values: text, numbers, flags, secrets, actions, tuples of these."""

    actions: tuple[Action, ...] = ()
    app: str = ""  # the app it belongs to; "" for what the host shares

    #: Resources of one class with `together` are changed in one go (one apt transaction): see `change_together`.
    together: ClassVar[bool] = False
    #: Looking at it waits for another program (psql, systemctl), so the agent begins with that. One of a class will do:
    #: the answer is remembered for all.
    asks: ClassVar[bool] = False
    #: Hangs on the network for long and on nothing else of this host: `prepare` is called while apt works.
    ahead: ClassVar[bool] = False
    #: Data (databases, media) and what others may rely on (packages) is never removed by a plan.
    removable: ClassVar[bool] = True

    @property
    @abstractmethod
    def key(self) -> str:
        """Its identity on the host, e.g. `postgres database memories`."""

    @abstractmethod
    def wanted(self) -> State:
        """What it shall be: plain values by name."""

    @abstractmethod
    def observe(self) -> State | None:
        """The same names as the host has them; None: absent. Raises NotYet when the host cannot tell yet."""

    @abstractmethod
    def change(self, observed: State | None) -> None:
        """Makes it so. Raises Failed."""

    def consequences(self, observed: State | None) -> tuple[str, ...]:
        """What a plan says that follows from the change: its actions, and what `change` itself restarts."""
        return tuple(action.name for action in self.actions)

    def prepare(self) -> None:
        """Does what can be done before its turn, beside the changes of others; only called when `ahead` and absent."""
        raise NotImplementedError

    def remove(self) -> None:
        """Takes it off the host (only called when `removable`)."""
        raise Failed(f"{self.key} cannot be removed")

    def erase(self) -> str:
        """Destroys data that `remove` would never touch: only `remove-app --delete-data` asks for it.

        Returns where a copy was kept, "" when none was.
        """
        return ""

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """Makes several of this class so in one go; only called when `together`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Note:
    """What a recipe has to say about its choices: shown in a plan; a warning is shown at a deploy, too."""

    text: str
    warning: bool = False


Render = Callable[..., str]
"""`render("nginx/site.conf.j2", app=app)` -> text; raises on a name that the template uses and nobody gave.

Instead of one template's name there may be several: the first that the project or deploykit has is taken.
"""


def encode(value: object) -> Any:
    """Plain JSON data of a resource, an action, or any value a field may hold.

    A dataclass becomes `{"<module>:<class>": {field: value}}`; tuples become lists.
    """
    kind: Any = type(value)
    if kind in _PLAIN:  # most values are: a manifest of ten apps has thousands
        return value
    if kind is tuple or kind is list:
        return [encode(each) for each in cast("Any", value)]
    if isinstance(value, Secret):
        return {"secret": value.reveal()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a resource cannot hold {kind.__name__}")
    name, fields = _described(kind)
    return {name: {field: encode(getattr(value, field)) for field in fields}}


_PLAIN = frozenset({str, int, float, bool, type(None)})


@functools.cache
def _described(kind: type[Any]) -> tuple[str, tuple[str, ...]]:
    """A dataclass's name, and the fields that make it."""
    return f"{kind.__module__}:{kind.__qualname__}", tuple(f.name for f in dataclasses.fields(kind) if f.init)


def decode(data: Any) -> Any:
    """The value that `encode` was given. Imports the class's module: only ever fed with our own manifest."""
    if isinstance(data, list):
        return tuple(decode(each) for each in data)
    if not isinstance(data, dict):
        return data
    ((name, fields),) = data.items()
    if name == "secret":
        secret.known.add(fields)
        return Secret(fields)
    return _named(name)(**{key: decode(each) for key, each in fields.items()})


@functools.cache
def _named(name: str) -> Any:
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def decoded(data: Any) -> Any:
    """The value, or None for what another version of deploykit or a recipe that is gone has made."""
    try:
        return decode(data)
    except (ImportError, AttributeError, TypeError, ValueError, KeyError):
        return None


__all__ = [
    "Action",
    "Aspect",
    "Conflict",
    "Failed",
    "HostSecret",
    "Joined",
    "NotYet",
    "Note",
    "Render",
    "Resource",
    "Secret",
    "State",
    "decode",
    "decoded",
    "encode",
]
