"""The shape of a document: unknown keys, missing keys, wrong kinds of values, each reported in plain words.

Walks the dataclasses of `models`. Meaning (domains, names, references) is the business of `rules`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from deploykit.agent.dataclass import dataclass
from deploykit.config.toml import Path
from deploykit.errors import Problem


@dataclass(frozen=True)
class Mistake:
    """A problem before its line is known. `path` leads to the value; `inside` counts the keys after the table's."""

    path: Path
    what: str
    allowed: str = ""
    suggestion: str = ""

    def problem(self, lines: Mapping[Path, int]) -> Problem:
        """With the line of the value, or else of the nearest table around it."""
        depth = len(self.path)
        while depth and self.path[:depth] not in lines:
            depth -= 1
        table, key = _split(self.path)
        return Problem(table, key, lines.get(self.path[:depth], 0), self.what, self.allowed, self.suggestion)


def _split(path: Path) -> tuple[str, str]:
    """("apps", "blog", "env", "X") -> ("apps.blog.env", "X"): a person sees tables where tables usually are."""
    head = 3 if len(path) > 3 and path[2] in ("web", "env") else min(2, len(path))
    return dotted(path[:head]), dotted(path[head:])


def dotted(path: Path) -> str:
    """A path as TOML writes it; places in arrays count from 1, as people do."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            plain = part.replace("-", "").replace("_", "").isalnum() and part.isascii()
            text += ("." if text else "") + (part if plain else shown(part))
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or ""."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower()[:64], names, n=1, cutoff=0.6)
    return names[found[0]] if found else ""


def kind_of(value: object) -> str:
    """What a TOML value is, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    return "a date or time"


def shown(value: object) -> str:
    """A value that is no secret, in quotes: what does not print is escaped, what is long is cut."""
    text = str(value)
    text = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text[:61])
    return f'"{text}"' if len(text) <= 60 else f'"{text[:60]}..."'


#: Stands for a value that was reported.
_WRONG = object()

_hints: dict[type, dict[str, Any]] = {}


def hints(model: type) -> dict[str, Any]:
    """The types of a model's keys (reading them is slow enough to do it once)."""
    if model not in _hints:
        _hints[model] = typing.get_type_hints(model)
    return _hints[model]


class Reader:
    """Makes model instances of plain TOML values and collects every mistake on the way."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def add(self, path: Path, what: str, allowed: str = "", suggestion: str = "") -> None:
        """Notes a mistake, unless one is noted for this very value already: a second is a consequence."""
        if all(mistake.path != path for mistake in self.mistakes):
            self.mistakes.append(Mistake(path, what, allowed, suggestion))

    def faulty(self, path: Path) -> bool:
        """Whether a mistake is noted for this value or inside it: then its meaning is not worth a look."""
        return any(mistake.path[: len(path)] == path for mistake in self.mistakes)

    def table(self, model: type, value: dict[str, object], path: Path) -> Any:
        """An instance of `model`; what is wrong or missing is blank in it, so that the rest is checked too."""
        fields = {each.name: each for each in dataclasses.fields(model)}
        given: dict[str, Any] = {}
        for name, content in value.items():
            if name not in fields:
                self._unknown((*path, name), name, fields)
            else:
                read = self._value(hints(model)[name], content, (*path, name), fields[name].metadata)
                if read is not _WRONG:
                    given[name] = read
        for name, each in fields.items():
            needed = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            if needed and name not in given:
                meant = any(nearest(other, fields) == name for other in value.keys() - fields.keys())
                if name not in value and not meant:
                    self.add((*path, name), "this key is missing", each.metadata["allowed"])
                given[name] = () if str(hints(model)[name]).startswith("tuple") else ""
        return model(**given)

    def _unknown(self, path: Path, name: str, known: Iterable[str]) -> None:
        what = "there is no such table" if len(path) == 1 else "there is no such key"
        self.add(path, what, ", ".join(known), nearest(name, known))

    def _wrong(self, path: Path, value: object, allowed: str, suggestion: str = "") -> None:
        self.add(path, f"{kind_of(value)} does not fit here", allowed, suggestion)

    def _value(self, hint: Any, value: object, path: Path, about: Mapping[str, Any]) -> Any:
        options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        option = self._option(options, value)
        if option is None:
            self._wrong(path, value, about["allowed"], _as_meant(options, value))
            return _WRONG
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option):
            return self.table(typing.cast(type, option), typing.cast(dict[str, object], value), path)
        if origin is typing.Literal:
            return self._choice(inner, value, path)
        if origin is tuple:
            values = typing.cast(list[object], value)
            read = [self._value(inner[0], each, (*path, index), about) for index, each in enumerate(values)]
            return tuple("" if each is _WRONG else each for each in read)
        if origin is not None:  # a table of names
            names = typing.cast(dict[str, object], value)
            pairs = {name: self._value(inner[1], each, (*path, name), about) for name, each in names.items()}
            return {name: each for name, each in pairs.items() if each is not _WRONG}
        if option is int:
            return self._bounds(typing.cast(int, value), path, about)
        return value

    def _option(self, options: tuple[Any, ...], value: object) -> Any:
        """The member of a union that a value of this kind belongs to."""
        if isinstance(value, dict):
            tables = [option for option in options if dataclasses.is_dataclass(option)]
            if tables:  # the one whose keys are most alike, and above all those that it cannot do without
                return max(tables, key=lambda table: _alike(table, value.keys()))
            return next(
                (option for option in options if typing.get_origin(option) not in (None, tuple, typing.Literal)),
                None,
            )
        if isinstance(value, list):
            return next((option for option in options if typing.get_origin(option) is tuple), None)
        if type(value) in options:
            return type(value)
        literal = next((option for option in options if typing.get_origin(option) is typing.Literal), None)
        return literal if isinstance(value, str) else None

    def _choice(self, words: tuple[Any, ...], value: object, path: Path) -> object:
        if value not in words:
            allowed = ", ".join(f'"{word}"' for word in words)
            meant = nearest(str(value), words)
            self.add(path, f"{shown(value)} is none of the choices", allowed, meant and f'"{meant}"')
            return _WRONG
        return value

    def _bounds(self, value: int, path: Path, about: Mapping[str, Any]) -> object:
        if about.get("ge", value) <= value <= about.get("le", value):
            return value
        self.add(path, f"{value} is out of range", about["allowed"])
        return _WRONG


def _alike(table: Any, given: Collection[str]) -> tuple[int, int]:
    """How many of the given keys a table knows, and how many of those that it needs are given."""
    fields = {each.name: each.default is dataclasses.MISSING for each in dataclasses.fields(table)}
    return len(fields.keys() & given), sum(needed and name in given for name, needed in fields.items())


def _as_meant(options: tuple[Any, ...], value: object) -> str:
    """The same value in the kind that fits: quotes around it, brackets around it, or quotes taken off."""
    lists = any(typing.get_origin(option) is tuple for option in options)
    if isinstance(value, str):
        if value.isdigit() and int in options:
            return str(int(value))
        if value.lower() in ("true", "yes", "on", "false", "no", "off") and bool in options:
            return "true" if value.lower() in ("true", "yes", "on") else "false"
        return f'["{value}"]' if lists and '"' not in value and value.isprintable() else ""
    if isinstance(value, bool):
        return f'"{str(value).lower()}"' if str in options else ""
    if isinstance(value, int | float) and str in options:
        return f'"{value}"'
    if isinstance(value, list) and str in options and len(value) == 1 and isinstance(value[0], str):
        return f'"{value[0]}"'
    return ""
