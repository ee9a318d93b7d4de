"""Changes to deploykit.toml that leave every other byte as it was: comments, order, quotes, line ends.

New tables are appended and old ones cut out as text: a document that is written anew, even by a careful library, is
never quite the one that was read. Read the file with `newline=""`, or its line ends are lost before they come here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deploykit.config.names import APP_NAME_ALLOWED, app_name_mistake
from deploykit.config.toml import Statement, parse, statements
from deploykit.errors import DeploykitError

_FILE = "deploykit.toml"


def add_app(
    text: str,
    name: str,
    table_values: Mapping[str, Any],
    questions: Sequence[str] = (),
    comments: Mapping[str, str] | None = None,
) -> str:
    """`text` with a table [apps.NAME] at its end; `questions` become comments in it.

    Raises DeploykitError for an app that is there already, or a name that no app may have.
    """
    mistake = app_name_mistake(name)
    if mistake:
        raise DeploykitError(mistake, f"[apps.{name}]"[:80], f"allowed: {APP_NAME_ALLOWED}")
    before = parse(text, _FILE)
    apps = before.get("apps", {})
    if not isinstance(apps, dict):
        raise DeploykitError("`apps` is no table", _FILE, "write tables [apps.NAME] instead")
    if name in apps:
        raise DeploykitError(f"the app {name} is there already", f"[apps.{name}] in {_FILE}", "choose another name")
    wanted = {**before, "apps": {**apps, name: dict(table_values)}}
    if any(statement.path == ("apps",) and not statement.header for statement in statements(text)):
        return _checked(_into_inline(text, name, table_values), wanted, text)
    end = "\r\n" if "\r\n" in text else "\n"
    lines = _table(name, table_values, questions, comments or {})
    gap = "" if not text.strip() else end if text.endswith("\n") else end * 2
    return _checked(text + gap + "".join(line + end for line in lines), wanted, text)


#: Keys of an app that are written as tables of their own, and those that hold such tables by name.
_TABLES, _NAMED = ("env", "web", "hooks"), ("processes", "schedule", "services")


def _table(name: str, values: Mapping[str, Any], questions: Sequence[str], comments: Mapping[str, str]) -> list[str]:
    lines = [f"[apps.{name}]"]
    tables: dict[str, Mapping[str, Any]] = {}
    for key, value in values.items():
        if key in _TABLES and isinstance(value, Mapping):
            tables[key] = value
        elif key in _NAMED and isinstance(value, Mapping):
            tables |= {f"{key}.{each}": inside for each, inside in value.items()}
        else:
            lines.append(_pair(key, value, comments.get(key, "")))
    lines += [f"# {_one_line(question)}" for question in questions]
    for key, table in tables.items():
        lines += ["", f"[apps.{name}.{key}]"]
        lines += [_pair(each, value, comments.get(f"{key}.{each}", "")) for each, value in table.items()]
    return lines


def _pair(key: str, value: Any, comment: str) -> str:
    import tomlkit

    bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)
    return f"{key if bare else tomlkit.item(key).as_string()} = {_plain(value)}" + (
        f"  # {_one_line(comment)}" if comment else ""
    )


def _plain(value: Any) -> str:
    """A value on one line: tables within braces, lists within brackets."""
    import tomlkit

    if isinstance(value, Mapping):
        return "{ " + ", ".join(_pair(key, each, "") for key, each in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(each) for each in value) + "]"
    return str(tomlkit.item(value).as_string())


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _into_inline(text: str, name: str, values: Mapping[str, Any]) -> str:
    """`apps = { ... }`: TOML lets no header extend it, so the new app goes inside the braces."""
    import tomlkit

    document = tomlkit.parse(text)
    apps: Any = document["apps"]
    inside = tomlkit.inline_table()
    inside.update(dict(values))
    apps[name] = inside
    return tomlkit.dumps(document)


def remove_app(text: str, name: str) -> str:
    """`text` without the app, the tables below it, and the comment lines right above its header.

    Raises DeploykitError when it is not there.
    """
    before = parse(text, _FILE)
    apps = before.get("apps", {})
    if not isinstance(apps, dict) or name not in apps:
        listed = ", ".join(apps) if isinstance(apps, dict) and apps else "none"
        raise DeploykitError(f'there is no app "{name}"', _FILE, f"apps in the file: {listed}")
    left = {key: value for key, value in apps.items() if key != name}
    found = statements(text)
    if any(each.path == ("apps",) and not each.header for each in found):
        import tomlkit

        document = tomlkit.parse(text)
        inside: Any = document["apps"]
        del inside[name]
        return _checked(tomlkit.dumps(document), {**before, "apps": left}, text)
    cut: list[tuple[int, int]] = []
    mine = [each.path[:2] == ("apps", name) for each in found]
    section = False  # within a table of the app's own, and not among the keys of [apps] or the file's top
    for number, each in enumerate(found):
        section = mine[number] if each.header else section
        if mine[number]:
            following = found[number + 1] if number + 1 < len(found) else None
            start = _above(text, each.start) if each.header else each.start
            if following is not None and mine[number + 1]:
                cut.append((start, following.start))
            else:
                cut.append((start, _until(text, each.end, following) if section else each.end))
    kept, at = [], 0
    for start, end in cut:
        kept.append(text[at : max(at, start)])
        at = max(at, end)
    made = "".join(kept) + text[at:]
    wanted = {**before, "apps": left} if left or "apps" in parse(made, _FILE) else _without(before)
    return _checked(made, wanted, text)


def _without(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "apps"}


def _above(text: str, start: int) -> int:
    """Where the comment lines right above a header begin: they speak of it."""
    while start:
        line = text.rfind("\n", 0, start - 1) + 1
        if not text[line:start].lstrip().startswith("#"):
            break
        start = line
    return start


def _until(text: str, end: int, following: Statement | None) -> int:
    """Where the app's last table ends: at what belongs to the next one, or at comments that stand alone."""
    stop = len(text) if following is None else _above(text, following.start)
    gap = text[end:stop]
    return stop if not gap.strip() else end + len(gap) - len(gap.lstrip("\r\n"))


def _checked(made: str, wanted: Mapping[str, Any], text: str) -> str:
    """The proof of an edit: the new text means what was asked for, and nothing else."""
    if parse(made, _FILE) != wanted:
        todo = "edit it by hand; the layout of its tables is one that cannot be changed safely"
        raise DeploykitError("the file was left as it is", _FILE, todo)
    return made


def init_text() -> str:
    """A deploykit.toml to start from: no host and no app yet, everything explained."""
    return _STARTER


_STARTER = """\
# What runs where. `fab plan` shows what would change on a host, `fab deploy` makes it so.
# Every key: docs/reference.md of deploykit, or `fab schema` for your editor.

# A host: a Debian or Ubuntu machine that you reach with ssh as root or as a user who may sudo.
#
# [hosts.web1]
# address = "203.0.113.7"    # or leave it out: then web1 is an alias of ~/.ssh/config
# user = "root"

# An app: `fab add-app blog --source ../blog --domain blog.example` writes it for you.
#
# [apps.blog]
# source = "../blog"                    # or { git = "https://example.com/blog.git", ref = "main" }
# domains = ["blog.example"]
# redirects = ["www.blog.example"]
# database = "postgres"                 # or "sqlite", "none", or a URL
# redis = true
#
# [apps.blog.env]
# EMAIL_HOST = "mail.example"
# STRIPE_KEY = { env = "STRIPE_KEY" }   # from your environment; { command = "pass show blog/stripe" } works too
"""


def fabfile_text() -> str:
    """The fabfile.py of a project."""
    return "from deploykit.tasks import *  # noqa: F403 (fab finds its tasks here)\n"


GITIGNORE = (".deploykit/",)


def gitignore_text(text: str) -> str:
    """`text` of a .gitignore with the lines that are missing."""
    there = {line.strip().rstrip("/") for line in text.splitlines()}
    end = "\r\n" if "\r\n" in text else "\n"
    missing = [line for line in GITIGNORE if line.rstrip("/") not in there]
    gap = end if missing and text and not text.endswith("\n") else ""
    return text + gap + "".join(line + end for line in missing)
