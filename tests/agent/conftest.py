"""deploykit's memory in a folder of each test's own, and the engine that applies resources there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import applying, engine, paths
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Resource

from .applied import Apply


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """deploykit's memory in a folder of the test's."""
    place = tmp_path_factory.mktemp("state")
    before = paths.STATE
    for name, value in vars(paths).items():
        if isinstance(value, Path):
            monkeypatch.setattr(paths, name, place / value.relative_to(before))
    return place


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def apply(tmp_path: Path, told: list[dict[str, Any]]) -> Apply:
    """Applies resources; what was told before is forgotten."""

    def work(*resources: Resource) -> tuple[int, bool]:
        told.clear()
        manifest = Manifest(resources, ())
        return applying.apply(manifest, engine.plan(manifest), {}, tmp_path, told.append)

    return work
