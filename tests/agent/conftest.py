"""deploykit's memory in a folder of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.agent import paths


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """deploykit's memory in a folder of the test's."""
    place = tmp_path_factory.mktemp("state")
    before = paths.STATE
    for name, value in vars(paths).items():
        if isinstance(value, Path):
            monkeypatch.setattr(paths, name, place / value.relative_to(before))
    return place
