"""Real machines for the tests below this folder: each boots its own, and none outlives its test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploykit.sandbox import BASE, Image

from . import machines
from .machines import WARM, Machine

PREFIX = os.environ.get("DEPLOYKIT_TEST_PREFIX", "t")

Make = Callable[..., Machine]

#: The kind of machines that `--hosts` chose.
chosen = machines.KINDS[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "what the tests run on: systemd-nspawn machines, or those of vagrant/Vagrantfile"
    parser.addoption("--hosts", choices=machines.KINDS, default=chosen, help=text)


def pytest_configure(config: pytest.Config) -> None:
    global chosen
    chosen = config.getoption("--hosts", chosen)
    config.addinivalue_line("markers", "only(hosts, reason): makes sense on that kind of machines alone")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is in slow/ runs when it is asked for by that name, and not with all the others."""
    return True if collection_path.name == "slow" and not any("slow" in each for each in config.args) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("only"):
            kind, reason = mark.args
            if kind != chosen:
                item.add_marker(pytest.mark.skip(reason=f"--hosts={kind} only: {reason}"))


@pytest.fixture(scope="session")
def prepared() -> None:
    """What machines of the chosen kind need is there."""
    machines.prepare(chosen)


@pytest.fixture
def machine(prepared: None) -> Iterator[Make]:
    """Call it to get a running, pristine machine: `machine("web", image=WARM)`. Its name is its own."""
    with contextlib.ExitStack() as ends:

        def make(suffix: str = "a", image: Image = BASE, disk_mb: int | None = None) -> Machine:
            return ends.enter_context(machines.standing(chosen, unique(suffix), image, disk_mb))

        yield make


def unique(suffix: str) -> str:
    """A machine's name that no other test process uses."""
    return f"{PREFIX}{os.getpid():x}-{suffix}"


__all__ = ["WARM", "Machine", "Make", "chosen", "unique"]
