"""The configurations of docs/projects.md: what a test deploys here is, word for word, what a reader copies."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from deploykit.sandbox import Image

from .conftest import WARM
from .machines import REPOSITORY
from .site import Project, standing

PAGE = REPOSITORY / "docs/projects.md"
_TEMPLATE = re.compile(r"^`templates/(\S+)`:\n\n```jinja\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write(project: Project, title: str) -> None:
    """Writes what the section whose heading begins with `title` says: deploykit.toml, for the host, and templates."""
    found = re.search(rf"^## {re.escape(title)}\b[^\n]*\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE} has no section {title}"
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)
    project.write(f"{project.host.table}\n{toml}")
    for name, text in _TEMPLATE.findall(found[1]):
        place = project.folder / "templates" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@contextlib.contextmanager
def deployed(
    title: str, folder: Path, suffix: str, *, image: Image = WARM, secrets: dict[str, str] | None = None
) -> Iterator[Project]:
    """A host to which that section's configuration was deployed, from `folder`; `secrets` are set by name before."""
    with standing(suffix, image) as host:
        project = Project(folder, host)
        write(project, title)
        for name, value in (secrets or {}).items():
            done = project.fab("secrets", "set", "--name", name, stdin=value)
            assert done.status == 0, done.text
        project.first = project.fab("deploy", seconds=1500)
        assert project.first.status == 0, project.first.text
        yield project
