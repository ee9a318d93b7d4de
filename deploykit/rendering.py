"""Templates to text: the project's own `templates/` before deploykit's."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from deploykit import cache
from deploykit.agent.resource import Failed, Render
from deploykit.agent.secret import quote
from deploykit.errors import DeploykitError

if TYPE_CHECKING:
    import jinja2

OURS = Path(__file__).parent / "templates"


@runtime_checkable
class Quotable(Protocol):
    """A value that a template must not see: it says itself what stands for it in the text."""

    def quoted(self, how: str) -> str:
        """What stands for `quote(how, value)`."""


def as_json(value: object) -> str:
    """The filter `json`: a value as JSON (and YAML) has it, secrets included."""
    if isinstance(value, Quotable):
        return value.quoted("json")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quote('json', str(key))}: {as_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_json, value)) + "]"
    return quote("json", value) if isinstance(value, str) else json.dumps(value)


def as_python(value: object) -> str:
    """The filter `python`: a value as a Python module has it, secrets included."""
    str(value)  # what nobody gave complains of that, and has a representation nonetheless
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)


def as_url(value: object) -> str:
    """The filter `urlencode`: a value as a part of a URL has it, secrets included; of a mapping, a query."""
    if isinstance(value, Quotable):
        return value.quoted("url")
    if isinstance(value, Mapping):
        return "&".join(f"{as_url(key)}={as_url(each)}" for key, each in value.items())
    return urllib.parse.quote(str(value), safe="")


def _cache() -> jinja2.BytecodeCache | None:
    """Compiling our templates takes longer than rendering them for ten apps. The folder is the user's alone."""
    import jinja2

    place = cache.private("templates")  # what is in there is run
    return None if place is None else jinja2.FileSystemBytecodeCache(str(place))


def renderer(project: Path) -> Render:
    """`render("nginx/site.conf.j2", **values)`; a name that nobody gave is an error that says which and where.

    Of several names the first that there is counts: `render(("nginx/blog.conf.j2", "nginx/site.conf.j2"), **values)`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader(project / "templates"),
                jinja2.FileSystemLoader(OURS),
                # A project's template may extend ours of the same name: {% extends "deploykit/nginx/site.conf.j2" %}
                jinja2.PrefixLoader({"deploykit": jinja2.FileSystemLoader(OURS)}),
            ]
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        bytecode_cache=_cache(),
        auto_reload=False,  # nothing changes while one command runs
    )

    environment.filters |= {"json": as_json, "tojson": as_json, "python": as_python, "urlencode": as_url}

    def render(names: str | Sequence[str], **values: object) -> str:
        template = names if isinstance(names, str) else names[-1]
        try:
            found = environment.select_template([names] if isinstance(names, str) else names)
            template = found.name or template
            return found.render(**values)
        except jinja2.TemplateNotFound as error:
            where = f"{template}" if error.name != template else str(project / "templates")
            raise DeploykitError(f"there is no template {error.name}", where) from None
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.filename or template}:{error.lineno}"
            raise DeploykitError(f"the template is wrong: {error.message}", where) from None
        except jinja2.UndefinedError as error:
            where = _line(error, template)
            raise DeploykitError(f"the template uses what nobody gave: {error.message}", where) from None
        except (Failed, DeploykitError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever a template of the user's does)
            what = f"the template cannot be filled in: {type(error).__name__}: {error}"
            raise DeploykitError(what, _line(error, template)) from None

    return render


def _line(error: Exception, template: str) -> str:
    """ "path:line" of the template's line that an error is from: the last one, in one that is included or extended."""
    where, trace = template, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "templates" in Path(file).parts and not file.endswith(".py"):
            where = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where
