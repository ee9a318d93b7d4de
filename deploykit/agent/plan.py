"""The differences between wanted and observed, as data that a screen can show and a script can read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Aspect, NotYet, Resource, Secret, State

#: Longer texts are cut in a plan: it is for reading.
LONGEST_DIFF = 400


@dataclass(frozen=True)
class Difference:
    """One aspect that is not as wanted. `text` is a unified diff where both are texts of several lines."""

    name: str
    old: Aspect
    new: Aspect
    text: str = ""

    def plain(self) -> dict[str, Any]:
        """JSON data, secrets masked."""
        data: dict[str, Any] = {"name": self.name}
        if self.text:
            data["diff"] = self.text
        else:
            data["old"], data["new"] = _shown(self.old), _shown(self.new)
        return data


@dataclass(frozen=True)
class Change:
    """One line of a plan. `verb`: "create", "change", "remove", "later" (the host cannot tell yet), "run"."""

    key: str
    verb: str
    differences: tuple[Difference, ...] = ()
    actions: tuple[str, ...] = ()
    app: str = ""

    def plain(self) -> dict[str, Any]:
        """JSON data, secrets masked."""
        return {
            "key": self.key,
            "verb": self.verb,
            "app": self.app,
            "differences": [each.plain() for each in self.differences],
            "actions": list(self.actions),
        }


def _shown(value: Aspect) -> Any:
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, tuple):
        return [_shown(each) for each in value]
    return value


def compare(wanted: State, observed: State | None) -> tuple[Difference, ...]:
    """What of `wanted` is otherwise in `observed`. Aspects that only `observed` has do not count."""
    found = observed or {}
    return tuple(
        difference(name, found.get(name), value)
        for name, value in wanted.items()
        if name not in found or found[name] != value
    )


def difference(name: str, old: Aspect, new: Aspect) -> Difference:
    """A difference, with a unified diff where one is of use."""
    text = ""
    if isinstance(new, str) and (old is None or isinstance(old, str)) and ("\n" in new or "\n" in (old or "")):
        text = unified(old or "", new)
    return Difference(name, old, new, text)


def unified(old: str, new: str) -> str:
    """A unified diff without the two header lines; cut when very long."""
    import difflib

    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    if len(lines) > LONGEST_DIFF:
        lines = [*lines[:LONGEST_DIFF], f"... {len(lines) - LONGEST_DIFF} more lines"]
    return "\n".join(lines)


def examine(resource: Resource) -> Change | None:
    """The change a resource needs, None when it is as wanted."""
    try:
        observed = resource.observe()
        wanted = resource.wanted()
    except NotYet:
        return Change(resource.key, "later", (), tuple(action.name for action in resource.actions), resource.app)
    differences = compare(wanted, observed)
    if not differences and observed is not None:
        return None
    verb = "create" if observed is None else "change"
    return Change(resource.key, verb, differences, resource.consequences(observed), resource.app)


def removals(unwanted: Iterable[Resource]) -> list[Resource]:
    """Of the resources that deploykit made and nobody wants now, those that are there: in the order of removal.

    One that cannot be looked at counts as there: its removal says why.
    """
    found = []
    for resource in unwanted:
        if resource.removable:
            try:
                there = resource.observe() is not None
            except NotYet:
                there = False
            except Exception:  # noqa: BLE001 (an app may have put anything in its place)
                there = True
            if there:
                found.append(resource)
    return found[::-1]
