"""Finding recipes: a project's own `recipes/nginx.py` is found before ours, and may import and extend ours.

No registry: a recipe is a module with `recipe(host, facts, render)`. Ours are `deploykit.recipes.<name>`, the project's
are `recipes.<name>`, on the controller as on the host.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from deploykit import recipes as ours
from deploykit.agent.resource import Note, Render, Resource
from deploykit.agent.values import Facts, Host
from deploykit.errors import DeploykitError

Recipe = Callable[[Host, Facts, Render], Iterator[Resource]]
#: A recipe module may also have `notes(host, facts)`: what it has to say about its choices.
Notes = Callable[[Host, Facts], Iterator[Note]]


def project_recipes(project: Path) -> Path | None:
    """The project's own recipes, unless the project is deploykit's own folder."""
    folder = project / "recipes"
    own = Path(ours.__file__).parent.resolve()
    return folder if folder.is_dir() and folder.resolve() != own else None


def recipes(host: Host, project: Path) -> list[tuple[str, Recipe, Notes | None]]:
    """(name, recipe, notes) of each recipe of a host in order.

    Ours (each replaced by the project's of that name), the host's own before the apps' code, which comes last.
    """
    folder = project_recipes(project)
    names = [*ours.ORDER[:-1], *host.recipes, ours.ORDER[-1]]  # the apps' code comes last
    found = []
    for name in dict.fromkeys(names):
        module = _theirs(name, folder) or _ours(name)
        if module is None:
            raise DeploykitError(
                f"there is no recipe {name}",
                f"[hosts.{host.name}] recipes",
                f"write {project / 'recipes' / name}.py with `def recipe(host, facts, render)`",
            )
        recipe = getattr(module, "recipe", None)
        if not callable(recipe):
            raise DeploykitError("has no function recipe(host, facts, render)", str(module.__file__))
        found.append((name, recipe, getattr(module, "notes", None)))
    return found


def _ours(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"deploykit.recipes.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"deploykit.recipes.{name}":
            return None
        raise


def _theirs(name: str, folder: Path | None) -> ModuleType | None:
    if folder is None or not (folder / f"{name}.py").is_file():
        return None
    parent = str(folder.parent.resolve())
    if parent not in sys.path:
        sys.path.insert(0, parent)
    try:
        _claim(parent)
        return importlib.import_module(f"recipes.{name}")
    except Exception as error:
        raise DeploykitError(
            f"the recipe cannot be imported: {type(error).__name__}: {error}", str(folder / f"{name}.py")
        ) from error


def _claim(parent: str) -> None:
    """Makes `recipes` the project's own package, whatever else of that name can be imported.

    A folder without `__init__.py` would lose to any package on `sys.path` that has one: to ours in an editable install.
    """
    loaded = sys.modules.get("recipes")
    if loaded is not None and f"{parent}/recipes" in list(loaded.__path__):
        return
    for name in [each for each in sys.modules if each == "recipes" or each.startswith("recipes.")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    spec = PathFinder.find_spec("recipes", [parent])
    assert spec is not None
    package = module_from_spec(spec)
    sys.modules["recipes"] = package
    if spec.loader is not None:
        spec.loader.exec_module(package)
