"""docs/reference.md: every table and key of deploykit.toml, made from the descriptions in `models`.

python -m deploykit.config.reference > docs/reference.md
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator

from deploykit.config import models, names, references

_TABLES: tuple[tuple[str, type, str], ...] = (
    ("[hosts.NAME]", models.HostTable, "A machine that is reached over SSH. NAME is what `--host` takes."),
    ("vagrant = { ... }", models.VagrantTable, "A Vagrant machine that has another name than the host."),
    (
        "[apps.NAME]",
        models.AppTable,
        "One Django project. NAME is its OS user, its folder `/srv/NAME`, and its database's name: "
        f"{names.APP_NAME_ALLOWED}; names of system users and of programs on the host are refused.",
    ),
    ("[apps.NAME.web]", models.WebTable, "The processes that answer requests."),
    (
        "[apps.NAME.processes.NAME]",
        models.ProcessTable,
        "A further process of the app: a worker, a scheduler, or a web server of its own for some paths.",
    ),
    (
        "[apps.NAME.schedule.NAME]",
        models.ScheduleTable,
        "A command that runs by the clock, as the app's user with the app's environment. It never overlaps itself.",
    ),
    (
        "[apps.NAME.services.NAME]",
        models.ServiceTable,
        "A cache or broker of the app's own. NAME is what `${NAME.url}` and the variable NAME_URL are called by.",
    ),
    (
        "[apps.NAME.hooks]",
        models.HooksTable,
        "Commands at a deploy's steps, as the app's user in the folder of manage.py. One that fails ends the deploy, "
        "and the live release goes on serving.",
    ),
    ("[[apps.NAME.checks]]", models.CheckTable, "A question that a release must answer well before it goes live."),
    (
        "[apps.NAME.files]",
        models.FileTable,
        'Configuration files outside the release, by name: `"NAME" = "TEMPLATE"`, or a table. Root writes them, the '
        "app reads them, nobody else; `${files.dir}` is their folder.",
    ),
    ("[apps.NAME.nginx]", models.NginxTable, "More of the app's site."),
    ('[apps.NAME.nginx.locations."/PATH/"]', models.LocationTable, "What nginx does at one URL path."),
    ("source = { ... }", models.Git, "A git repository as the source."),
    ("database = { ... }", models.DatabaseTable, "The database, when its kind alone does not say enough."),
    ("redis = { ... }", models.RedisTable, "The app's own Redis, with a limit of its own."),
    ("tls = { ... }", models.TlsTable, "A certificate that is on the host already."),
)

_HEAD = """\
# deploykit.toml

Every table and every key. Nothing else is allowed: an unknown key is an error, and all mistakes are reported at once.
The smallest file has one app:

```toml
[apps.blog]
source = "../blog"
domains = ["blog.example"]
```

This page is generated: `python -m deploykit.config.reference > docs/reference.md`. `fab schema` prints the same as a
JSON schema for editors.
"""

_VALUES = """\
## [apps.NAME.env]

The app's environment. A name is letters, digits and `_`, not beginning with a digit. What you set here wins over what
deploykit sets. A value is one of:

| value | where it comes from |
| --- | --- |
| `"text"` | this file; `${...}` in it is replaced, `$${` is a literal `${` |
| `{ secret = "NAME" }` | the host's own secret store; it never leaves the host |
| `{ secret = "NAME", make = 40 }` | the same; where nobody has set it the host invents it, so long (16 to 1024) |
| `{ env = "NAME" }` | your environment, when you run the command |
| `{ command = "pass show blog/stripe" }` | what the command prints on your machine, without its last line break |

A value that comes from a secret, a variable or a command is taken as it is: `${...}` in it means nothing.

| reference | what it becomes |
| --- | --- |
"""


def reference() -> str:
    """The page, as Markdown."""
    return "\n".join(_lines()).rstrip("\n") + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for title, model, words in _TABLES:
        yield f"## {title}\n\n{words}\n"
        hints = typing.get_type_hints(model)
        for each in dataclasses.fields(model):
            if each.name == "env" or hints[each.name] is models.WebTable:
                continue  # a table with a section of its own
            yield f"### `{each.name}`\n\n{each.metadata['description']}\n"
            yield f"- allowed: {each.metadata['allowed']}"
            if _default(each):
                yield f"- default: {_default(each)}"
            if each.metadata["example"]:
                yield f"- example: `{each.name} = {each.metadata['example']}`"
            yield ""
        if model is models.WebTable:
            yield _VALUES.rstrip("\n")
            for name, meaning in references.DESCRIPTIONS.items():
                yield f"| `${{{name}}}` | {meaning} |"
            yield ""
            yield "A cache or broker has these, by its name: `${redis.url}`, `${cache.url}`, `${broker.url}`, ...\n"
            yield "| kind | part | meaning |\n| --- | --- | --- |"
            for kind, parts in references.SERVICES.items():
                for part, meaning in parts.items():
                    yield f"| {kind} | `{part}` | {meaning} |"
            yield ""


def _default(each: dataclasses.Field[object]) -> str:
    value = each.default
    if value is dataclasses.MISSING:
        return "none, it must be given"
    if value is None or value == "" or value == () or (each.name == "port" and value == 0):
        return ""  # the description says what happens without it
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{part}"' for part in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
