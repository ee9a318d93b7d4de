"""Reading TOML: syntax errors in plain words, and on which line each key stands."""

from __future__ import annotations

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

    Raises ConfigError with line and column when the text is not TOML.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(str(error), text)], file) from None
    return document


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
