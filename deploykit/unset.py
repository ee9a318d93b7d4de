"""Environment variables that an app's settings read and that nobody sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deploykit.agent.deployment import Deployment
from deploykit.agent.envfile import EnvFile
from deploykit.agent.resource import Note
from deploykit.detect import Detected

#: What a process has anyway, or what only a developer's machine or a test has.
_NOT_OURS = frozenset(
    [
        *("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "VIRTUAL_ENV", "HOSTNAME", "PWD", "SHELL", "TERM", "TZ", "PORT"),
        *("TMPDIR", "TEMP", "TMP", "CI", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "GITHUB_ACTIONS", "GITLAB_CI"),
    ]
)


def notes(deployments: Iterable[Deployment], detected: Mapping[str, Detected]) -> tuple[list[Note], list[Note]]:
    """(warnings of what must be set, notes of what may be), app by app."""
    warnings, asides = [], []
    for each in deployments:
        found = detected.get(each.app)
        if found is None:
            continue
        given = {name for file in each.files("a") if isinstance(file, EnvFile) for name, _ in file.variables}
        left = [name for name in found.env if name not in given and name not in _NOT_OURS]
        needed = [name for name in left if found.env[name] and name not in found.perhaps]
        other = [name for name in left if name not in needed]
        if needed:
            one = f'{needed[0]} = {{ secret = "{needed[0]}" }} or = "..."'
            text = f"{each.app}: the settings read {', '.join(needed)}, which nobody sets: [apps.{each.app}.env] {one}"
            warnings.append(Note(text, warning=True))
        if other:
            asides.append(Note(f"{each.app}: the settings also read, if they are set: {', '.join(other)}"))
    return warnings, asides
