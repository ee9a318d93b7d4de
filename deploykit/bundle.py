"""The agent as one archive, named by its contents: it is sent only to a host that does not have this very one.

A zip of deploykit/model, deploykit/agent, deploykit/recipes and the project's own recipes. On the host it is unpacked
into /var/lib/deploykit/agent/<sha>/ and compiled there once: a zipapp would be compiled at every run (0.1 s).
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from deploykit.agent.dataclass import dataclass
from deploykit.catalogue import project_recipes

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Bundle:
    """The agent's files, and the name that their contents make."""

    sha: str
    files: Mapping[str, bytes] = field(repr=False)

    @functools.cached_property
    def data(self) -> bytes:
        """The archive. Made only when it must be sent: most hosts have it."""
        return _zip(self.files)


def bundle(project: Path) -> Bundle:
    """Equal sources make an equal archive: names sorted, times fixed, nothing but .py files."""
    files = {
        "__main__.py": (PACKAGE / "agent/__main__.py").read_bytes(),
        "deploykit/__init__.py": (PACKAGE / "__init__.py").read_bytes(),
    }
    for part in ("model", "agent", "recipes"):
        files.update(_modules(PACKAGE / part, f"deploykit/{part}"))
    theirs = project_recipes(project)
    if theirs is not None:
        files["recipes/__init__.py"] = b""
        files.update(_modules(theirs, "recipes"))
    return named(files)


def named(files: Mapping[str, bytes]) -> Bundle:
    """The bundle of these files: path to content."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return Bundle(digest.hexdigest()[:32], files)


def _modules(folder: Path, prefix: str) -> dict[str, bytes]:
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*.py")
        if "__pycache__" not in path.parts
    }


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
