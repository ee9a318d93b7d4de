"""Real machines for the tests below this folder: each boots its own, and none outlives its test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from deploykit import sandbox
from deploykit.sandbox import Image, Sandbox

WARM = Image(
    packages=(
        "curl",
        "git",
        "libpq5",
        "nginx",
        "postgresql",
        "python3-pip",
        "python3-venv",
        "redis-server",
        "rsync",
        "supervisor",
    )
)
"""A host on which most of what deploykit installs is there already, so that a test waits for no apt."""

PREFIX = os.environ.get("DEPLOYKIT_TEST_PREFIX", "t")

Machine = Callable[..., Sandbox]


@pytest.fixture(scope="session")
def prepared() -> None:
    """The programs that sandboxes need are installed, and the bare image is built."""
    sandbox.prepare()


@pytest.fixture
def machine(prepared: None) -> Iterator[Machine]:
    """Call it to get a running, pristine machine: `machine("web", image=WARM)`. Its name is its own."""
    with contextlib.ExitStack() as ends:

        def make(suffix: str = "a", **wanted: object) -> Sandbox:
            name = unique(suffix)
            ends.callback(sandbox.down, name)
            return sandbox.up(name, **wanted)  # type: ignore[arg-type]

        yield make


def unique(suffix: str) -> str:
    """A sandbox name that no other test process uses."""
    return f"{PREFIX}{os.getpid():x}-{suffix}"
