"""Who may import whom: read from the sources themselves."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "deploykit"
CONTROLLER = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not any(path.is_relative_to(PACKAGE / part) for part in ("model", "agent", "recipes"))
]
MODEL = sorted((PACKAGE / "model").rglob("*.py"))
AGENT = sorted((PACKAGE / "agent").rglob("*.py"))
RECIPES = sorted((REPOSITORY / "recipes").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, at its top or inside a function; `from a import b` is both `a` and `a.b`."""
    package = list(path.relative_to(REPOSITORY).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{each.name}" for each in node.names)


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)


def ids(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def test_there_is_something_to_look_at() -> None:
    assert len(CONTROLLER) > 30 and len(AGENT) > 20 and len(RECIPES) > 8
    assert "rich" in tops(PACKAGE / "screen.py"), "imports inside functions are seen"
    assert "deploykit.sandbox.store" in set(imports(PACKAGE / "sandbox/machine.py")), "relative ones, too"


@pytest.mark.parametrize("path", MODEL, ids=ids)
def test_the_model_imports_nothing_of_ours_but_itself(path: Path) -> None:
    for name in imports(path):
        assert name.partition(".")[0] in sys.stdlib_module_names or name.startswith("deploykit.model"), name


@pytest.mark.parametrize("path", AGENT + RECIPES, ids=ids)
def test_what_travels_needs_the_standard_library_only(path: Path) -> None:
    allowed = ("deploykit.model", "deploykit.agent", "deploykit.recipes")
    for name in imports(path):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            assert name == "deploykit" or name.startswith(allowed), f"{ids(path)} imports {name}"


@pytest.mark.parametrize("path", AGENT, ids=ids)
def test_the_agent_knows_no_recipe(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith("deploykit.recipes")]


@pytest.mark.parametrize("path", CONTROLLER, ids=ids)
def test_the_controller_knows_no_recipe_by_name(path: Path) -> None:
    """`deploykit.recipes` as a package is fine: it says which recipes there are."""
    modules = {each.stem for each in RECIPES if each.stem != "__init__"}
    named = {f"deploykit.recipes.{name}" for name in modules}
    assert not named & set(imports(path))
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not named & {text for text in texts if isinstance(text, str)}


@pytest.mark.parametrize(
    ("module", "only"),
    [("rich", "screen.py"), ("fabric", "transport.py"), ("paramiko", "transport.py"), ("jinja2", "rendering.py")],
)
def test_one_module_knows_it(module: str, only: str) -> None:
    assert [ids(path) for path in CONTROLLER if module in tops(path)] == [f"deploykit/{only}"]


@pytest.mark.parametrize("path", CONTROLLER, ids=ids)
def test_third_parties_are_those_of_the_project_file(path: Path) -> None:
    known = {"deploykit", "fabric", "invoke", "paramiko", "tomlkit", "tomli", "rich", "jinja2", "pydantic"}
    assert tops(path) - known == set(), "pydantic_core and the like are others' insides"


def test_what_a_command_does_not_need_is_not_imported() -> None:
    """Importing fabric costs 0.15 s: modules at the top of `tasks` are few, the rest comes when it is used."""
    heavy = {"fabric", "paramiko", "rich", "jinja2", "pydantic", "tomlkit"}
    for path in CONTROLLER:
        tree = ast.parse(path.read_text())
        at_top = {
            name.partition(".")[0]
            for node in tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        if path.parent == PACKAGE and path.name not in ("edit.py",):
            assert not at_top & heavy, f"{ids(path)} imports {at_top & heavy} at its top"


def test_tasks_are_thin() -> None:
    path = PACKAGE / "tasks.py"
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 10
    for function in functions:
        length = (function.end_lineno or 0) - function.lineno
        assert length < 50, f"{function.name} has {length} lines"
    assert not {"subprocess", "socket", "deploykit.transport", "deploykit.remote"} & set(imports(path))


@pytest.mark.parametrize("path", CONTROLLER + AGENT + RECIPES, ids=ids)
def test_no_file_has_grown_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 420


@pytest.mark.parametrize("path", CONTROLLER + AGENT + RECIPES, ids=ids)
def test_no_shell_is_given_a_value(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert not [each for each in node.keywords if each.arg == "shell"], f"{ids(path)}:{node.lineno}"
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                assert (node.func.value.id, node.func.attr) not in (("os", "system"), ("os", "popen"))
