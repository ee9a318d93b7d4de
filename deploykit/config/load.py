"""deploykit.toml -> Project, or every mistake in it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploykit.config import across, models, rules
from deploykit.config.check import Reader, kind_of
from deploykit.config.project import Project
from deploykit.config.toml import parse, positions
from deploykit.errors import ConfigError, DeploykitError

NAME = "deploykit.toml"


def load(path: Path | str) -> Project:
    """Reads `path`: a deploykit.toml, or the folder that holds it.

    Raises ConfigError with all mistakes, DeploykitError when there is no such file or it cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        file = file / NAME
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DeploykitError("there is no such file", str(file), "write one with: fab init") from None
    except OSError as error:
        raise DeploykitError(f"cannot be read: {error.strerror}", str(file), "") from None
    except UnicodeDecodeError as error:
        todo = "save it as UTF-8, the only encoding of TOML"
        raise DeploykitError(f"byte {error.start + 1} is not UTF-8", str(file), todo) from None
    return loads(text, file)


def loads(text: str, file: Path) -> Project:
    """The same, of text that is already read. `file` is for messages, its folder for relative sources."""
    document = parse(text, str(file))
    folder = file.absolute().parent
    reader = Reader()
    hosts = []
    apps = []
    top = reader.table(models.Document, {name: _empty(name, each) for name, each in document.items()}, ())
    assert isinstance(top, models.Document)
    for name, content in _tables(reader, document, "hosts").items():
        hosts.append(
            rules.host(reader, name, reader.table(models.HostTable, content, ("hosts", name)), ("hosts", name), folder)
        )
    for name, content in _tables(reader, document, "apps").items():
        table = reader.table(models.AppTable, content, ("apps", name))
        apps.append(rules.app(reader, name, table, ("apps", name), folder))
    across.check(reader, hosts, apps)
    if reader.mistakes:
        lines = positions(text)
        raise ConfigError([mistake.problem(lines) for mistake in reader.mistakes], str(file))
    notes = across.warn(apps).mistakes
    lines = positions(text) if notes else {}
    warnings = tuple(sorted((note.problem(lines) for note in notes), key=lambda problem: problem.line))
    return Project(folder, tuple(hosts), tuple(apps), warnings, file)


def _empty(name: str, content: Any) -> Any:
    """The document's own keys are checked first; what the tables hold is read one by one afterwards."""
    return {} if name in ("hosts", "apps") and isinstance(content, dict) else content


def _tables(reader: Reader, document: dict[str, Any], kind: str) -> dict[str, dict[str, object]]:
    content = document.get(kind, {})
    found = {}
    for name, table in content.items() if isinstance(content, dict) else ():
        if isinstance(table, dict):
            found[name] = table
        else:
            reader.add((kind, name), f"{kind_of(table)} does not fit here", f"a table [{kind}.NAME]")
    return found
