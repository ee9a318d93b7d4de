"""What a new release takes over from those that are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.agent import release

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="releases are root's")


def test_what_was_compiled_of_another_file_of_the_same_text_is_left(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "__pycache__").mkdir(parents=True)
    (old / "__pycache__/__init__.cpython-311.pyc").write_text("compiled")
    (old / "__init__.py").write_text("")
    new.mkdir()
    made = {new}
    for name in ("__init__.py", "more.py", "other/__init__.py"):  # all of them are empty
        release._folders((new / name).parent, made, 0)
        os.link(old / "__init__.py", new / name)
        release._link_compiled(old / "__init__.py", new / name, made, 0)
    found = sorted(str(each.relative_to(new)) for each in new.rglob("*.pyc"))
    assert found == ["__pycache__/__init__.cpython-311.pyc", "other/__pycache__/__init__.cpython-311.pyc"]
