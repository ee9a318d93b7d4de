"""Templates to text: the project's own `templates/` before deploykit's."""

from __future__ import annotations

from pathlib import Path

from deploykit.agent.resource import Render
from deploykit.errors import DeploykitError

OURS = Path(__file__).parent / "templates"


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
