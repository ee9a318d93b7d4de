"""Values that must never be shown: they travel on standard input and print as `(secret)`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from deploykit.agent.dataclass import dataclass

#: The values that this process has read or was given: `masking` takes them out of what leaves the host.
known: set[str] = set()


class Secret:
    """A text that hides itself wherever text is made of it: `str()`, `repr()`, f-strings, `%`.

    Not a `str`: so nothing that joins, encodes or dumps strings can let it slip; `reveal()` is the only way
    to the value. Compared by value, so that a plan can say that it changed.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "(secret)"

    __str__ = __repr__

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, ("(secret)",)  # a pickle (of a traceback's frame, say) must not carry it either


@dataclass(frozen=True)
class HostSecret:
    """A reference to a value in the host's own secret store, which never leaves the host.

    `make` (a number of characters) lets the host invent the value when it has none yet.
    """

    name: str
    make: int = 0


@dataclass(frozen=True)
class Quoted:
    """A secret as the text of a file must have it: `quote(how, ...)` of it, made where the value is known."""

    how: str
    value: Secret | HostSecret | Joined


@dataclass(frozen=True)
class Joined:
    """A text of which parts are known to the host only, such as a URL with a password that the host invented."""

    parts: tuple[str | Secret | HostSecret | Quoted, ...]

    def __str__(self) -> str:
        return "(secret)"


#: What a reader of YAML or of lines takes for a line break or refuses, though JSON does not mind it.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def quote(how: str, text: str) -> str:
    """`text` as it is written in a file: "json" (good for YAML, too), "python" or "url" (a part of a URL)."""
    if how == "json":
        written = json.dumps(text, ensure_ascii=False)
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", written)
    if how == "python":
        return repr(text)
    if how == "url":
        import urllib.parse  # rarely needed

        return urllib.parse.quote(text, safe="")
    raise ValueError(how)


def names(value: object) -> Iterator[str]:
    """The names of the host's secrets that a value holds, however deep."""
    if isinstance(value, HostSecret):
        yield value.name
    elif isinstance(value, tuple):
        for each in value:
            yield from names(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from names(getattr(value, field.name))
