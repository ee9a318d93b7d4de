"""Templates to text: the project's own `templates/` before deploykit's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.agent.resource import Render
from deploykit.errors import DeploykitError
from deploykit.memory import compiled

if TYPE_CHECKING:
    import jinja2

OURS = Path(__file__).parent / "templates"


def _cache() -> jinja2.BytecodeCache | None:
    """Compiling our templates takes longer than rendering them for ten apps. The folder is the user's alone."""
    import jinja2

    place = compiled()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = place.stat()
    except OSError:
        return None
    if owner.st_uid != os.getuid() or owner.st_mode & 0o022:  # what is in there is run
        return None
    return jinja2.FileSystemBytecodeCache(str(place))


def renderer(project: Path) -> Render:
    """`render("nginx/site.conf.j2", **values)`; a name that nobody gave is an error that says which and where."""
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
    )

    def render(template: str, **values: object) -> str:
        try:
            return environment.get_template(template).render(**values)
        except jinja2.TemplateNotFound as error:
            raise DeploykitError(f"there is no template {error.name}", template) from None
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.filename or template}:{error.lineno}"
            raise DeploykitError(f"the template is wrong: {error.message}", where) from None
        except jinja2.UndefinedError as error:
            raise DeploykitError(f"the template uses what nobody gave: {error.message}", template) from None

    return render
