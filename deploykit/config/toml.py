"""Reading TOML: syntax errors in plain words, and on which line each key stands."""

from __future__ import annotations

import math
import pathlib
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from deploykit.agent.dataclass import dataclass
from deploykit.errors import ConfigError, Problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

#: The way to a value: the keys, and numbers where an array is passed.
Path = tuple[str | int, ...]

_WORDS = {
    "Cannot overwrite a value": "this key is given twice",
    "Expected '=' after a key in a key/value pair": "a key must be followed by =",
    "Invalid value": "this is no value: text stands in quotes",
    "Invalid statement": "here a key or a [table] is expected",
    "Expected newline or end of document after a statement": "something follows the value; one key per line",
    "Unclosed array": "this array is not closed with ]",
    "Unterminated string": "this text is not closed with a quote",
}


def parse(text: str, file: str) -> dict[str, Any]:
    """The document as plain values.

    Raises ConfigError with line and column when the text is not TOML, or has what no key of ours can be.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
        way = _impossible(document, ())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(str(error), text)], file) from None
    except RecursionError:
        raise ConfigError([Problem("", "", 1, "tables or lists are nested too deeply")], file) from None
    except ValueError:  # Python reads numbers of 4300 digits at most
        found = re.search(r"\d{4000}", text.replace("_", ""))
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise ConfigError([Problem("", "", line, "invalid number: it has too many digits")], file) from None
    if way is not None:
        *table, key = (str(part).replace("\0", "\\0") for part in way[0][:4])
        lines = positions(text)
        line = next((lines[way[0][:end]] for end in range(len(way[0]), 0, -1) if way[0][:end] in lines), 1)
        allowed = "printable characters" if "NUL" in way[1] else ""
        raise ConfigError([Problem(".".join(table), key, line, way[1], allowed)], file)
    return document


#: Levels of tables and lists: what the file may say has five.
_DEEPEST = 30
#: TOML's own range of numbers: https://toml.io/en/v1.0.0#integer
_LARGEST = 2**63


def _impossible(value: Any, way: Path) -> tuple[Path, str] | None:
    """Where the first value stands that nothing can take, and what is wrong with it; None when there is none."""
    if len(way) > _DEEPEST:
        return way, "tables or lists are nested too deeply"
    if isinstance(value, str) and "\0" in value:
        return way, "invalid text: it has a NUL character in it"
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return way, "invalid number: it does not fit into 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return way, f"invalid number: {value}"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        if isinstance(key, str) and "\0" in key:
            return (*way, key), "invalid key: it has a NUL character in it"
        if found := _impossible(each, (*way, key)):
            return found
    return None


def _syntax(message: str, text: str) -> Problem:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    words, line, column = found.groups() if found else (message, None, None)
    declared = re.fullmatch(r"Cannot declare \((.*)\) twice", words)
    if declared:
        name = ".".join(part.strip(" '") for part in declared.group(1).split(",") if part.strip())
        words = f"the table [{name}] is given twice"
    number = int(line) if line else len(text.splitlines())
    place = f" (column {column})" if column else " (at the end of the file)"
    return Problem("", "", number, f"this is not TOML: {_WORDS.get(words, words)}{place}")


def positions(text: str) -> dict[Path, int]:
    """The line (from 1) on which each key, table or array element of a *valid* document begins."""
    return _Scan(text).document()


def located(problems: Iterable[Problem], file: pathlib.Path) -> list[Problem]:
    """The problems with the lines their keys stand on (or else of the table around), where the file can be read.

    For what is found only after the file was read: in the sources, in the environment.
    """
    try:
        lines = positions(file.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return list(problems)
    found = []
    for problem in problems:
        way: Path = (*(part for part in problem.table.split(".") if part), *([problem.key] if problem.key else []))
        while way and way not in lines:
            way = way[:-1]
        found.append(replace(problem, line=problem.line or lines.get(way, 0)))
    return found


_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PLAIN = re.compile(r"[^,\]}#\r\n]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{1,2})?'  # up to two quotes may stand before the closing three
    r"|'''.*?'''(?:'{1,2})?"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """A [header] or a `key = value` that is no part of another value: whole lines, from `start` up to `end`."""

    path: Path
    header: bool
    start: int
    end: int


def statements(text: str) -> list[Statement]:
    """The statements of a valid document in order. `path` is complete: header and dotted key together."""
    scan = _Scan(text)
    scan.document()
    return scan.statements


class _Scan:
    """One pass over text that `tomllib` accepted: so it need not look for mistakes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.counted = 0
        self.found: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}
        self.statements: list[Statement] = []

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_GAP) < len(self.text):
            start = self.text.rfind("\n", 0, self.at) + 1
            header = self.text[self.at] == "["
            if header:
                array = self.text.startswith("[[", self.at)
                self.at += 2 if array else 1
                table = self._through(self._key((), now=False))
                if array:
                    self.arrays[table] = self.arrays.get(table, -1) + 1
                    table = (*table, self.arrays[table])
                for depth in range(1, len(table) + 1):
                    self._note(table[:depth])
                self.at = self.text.index("]", self.at) + (2 if array else 1)
            path = table if header else self._pair(table)
            end = self.text.find("\n", self.at) + 1
            self.statements.append(Statement(path, header, start, end or len(self.text)))
        return self.found

    def _pair(self, table: Path) -> Path:
        path = self._key(table)
        self._skip(_SPACE)
        self.at += 1  # the "="
        self._skip(_SPACE)
        self._value(path)
        return path

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first == "{":
            self.at += 1
            while self.text[self._skip(_GAP)] != "}":
                self._pair(path)
                self._comma()
            self.at += 1
        elif first == "[":
            self.at += 1
            index = 0
            while self.text[self._skip(_GAP)] != "]":
                self._note((*path, index))
                self._value((*path, index))
                self._comma()
                index += 1
            self.at += 1
        else:
            self._skip(_STRING if first in "\"'" else _PLAIN)

    def _key(self, table: Path, now: bool = True) -> Path:
        """A dotted key. Every part of it is noted where it stands first."""
        path = table
        while True:
            self._skip(_SPACE)
            start = self.at
            self._skip(_STRING if self.text[start] in "\"'" else _BARE)
            word = self.text[start : self.at]
            path = (*path, next(iter(tomllib.loads(f"{word}=0"))) if word[0] in "\"'" else word)
            if now:
                self._note(path)
            self._skip(_SPACE)
            if self.text[self.at] != ".":
                return path
            self.at += 1

    def _through(self, path: Path) -> Path:
        """A header's path, with the number of the array's last table where it passes one."""
        full: Path = ()
        for depth, part in enumerate(path):
            full = (*full, part)
            if depth < len(path) - 1 and full in self.arrays:
                full = (*full, self.arrays[full])
        return full

    def _comma(self) -> None:
        self._skip(_GAP)
        if self.text[self.at] == ",":
            self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return self.at

    def _note(self, path: Path) -> None:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        self.found.setdefault(path, self.line)
