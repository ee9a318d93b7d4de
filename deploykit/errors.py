"""Errors of the controller: they carry data, and plain lines of text are made of them at the edge."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.agent.dataclass import dataclass


class DeploykitError(Exception):
    """Something that a person can mend: what happened, where, and what to do. None ends with a full stop."""

    def __init__(self, what: str, where: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo

    def lines(self) -> list[str]:
        """Plain lines, the first one the most important."""
        first = f"{self.where}: {self.what}" if self.where else self.what
        return [first, *([f"  {line}" for line in self.todo.splitlines()])]

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class Problem:
    """One mistake in a file. `table` is "apps.blog" ("" is the file's top), `line` counts from 1 (0: not known)."""

    table: str
    key: str
    line: int
    what: str
    allowed: str = ""  # "a number from 1 to 65535"
    suggestion: str = ""  # what was probably meant, as it would be written

    def lines(self, file: str) -> list[str]:
        """What is wrong, and below it what is allowed and what may have been meant."""
        place = f"{file}:{self.line}" if self.line else file
        name = " ".join(part for part in (f"[{self.table}]" if self.table else "", self.key) if part)
        found = [f"{place}: {name}: {self.what}" if name else f"{place}: {self.what}"]
        if self.suggestion:
            found.append(f"  did you mean: {self.suggestion}")
        if self.allowed:
            found.append(f"  allowed: {self.allowed}")
        return found


class ConfigError(DeploykitError):
    """All mistakes of a configuration file at once, in the order of its lines."""

    def __init__(self, problems: Sequence[Problem], where: str = "deploykit.toml", todo: str = "") -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        count = len(self.problems)
        super().__init__("1 mistake" if count == 1 else f"{count} mistakes", where, todo)

    def lines(self) -> list[str]:
        """Every problem, then what to do."""
        found = [line for problem in self.problems for line in problem.lines(self.where)]
        return [*found, *self.todo.splitlines()]
