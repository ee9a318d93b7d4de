"""What the agent does while the request is still on its way: nothing of it depends on what that says.

It knows no recipe by name: their package says which of them have a program to start ahead (`EARLY`), and in which order
they are needed (`ORDER`).
"""

from __future__ import annotations

import contextlib
import importlib
import select
import sys


def begin() -> None:
    """Starts what takes longer to start than to answer. First of all: it gets ready while Python loads the rest."""
    with contextlib.suppress(ImportError):
        for name in importlib.import_module("deploykit.recipes").EARLY:
            importlib.import_module(f"deploykit.recipes.{name}").begin()


def load() -> None:
    """Imports the recipes as long as no request is there. A project's own recipes follow with it."""
    with contextlib.suppress(ImportError):
        for name in importlib.import_module("deploykit.recipes").ORDER:
            if select.select([sys.stdin], [], [], 0)[0]:
                return
            importlib.import_module(f"deploykit.recipes.{name}")
