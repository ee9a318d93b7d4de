"""What Python files of a Django project say, read with `ast`: nothing is imported or run."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass
class Module:
    """One parsed file."""

    path: str
    literals: dict[str, object] = field(default_factory=dict)  # name -> last literal assigned (None: no literal)
    assigned: set[str] = field(default_factory=set)
    env: dict[str, bool] = field(default_factory=dict)  # variable -> whether it is needed
    defaults: dict[str, object] = field(default_factory=dict)  # variable -> the literal that stands for it
    perhaps: set[str] = field(default_factory=set)  # variables that are read only under a condition, or by a function
    truths: dict[str, str] = field(default_factory=dict)  # variable -> the text it is compared with
    texts: list[str] = field(default_factory=list)
    stars: list[tuple[int, str]] = field(default_factory=list)  # `from .base import *`: (level, module)
    routes: list[tuple[str, str]] = field(default_factory=list)  # (pattern, included module or "")
    settings: str = ""  # DJANGO_SETTINGS_MODULE
    imports: list[str] = field(default_factory=list)  # `from a.b import c`: "a.b"; run_module("a"): "a.__main__"


def module(path: str, content: bytes) -> Module:
    """What the file says; an empty Module when it does not parse (a newer Python's syntax, a template)."""
    found = Module(path)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return found
    guarded: set[str] = set()
    helpers = set(_helpers(tree))
    for node in ast.walk(tree):
        _note(found, node, guarded)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in helpers and node.args:
            _needs(found, _text(node.args[0]), False)
    for name in guarded & found.env.keys():
        found.env[name] = False
    if any(found.env.values()):
        surely = Module(path)
        for node in _unconditional(tree):
            _note(surely, node, set())
        found.perhaps = {name for name, needed in found.env.items() if needed and not surely.env.get(name)}
    return found


def _helpers(tree: ast.Module) -> Iterator[str]:
    """Functions of the module that read the variable whose name is their first argument."""
    for each in tree.body:
        if isinstance(each, ast.FunctionDef) and each.args.args:
            name = each.args.args[0].arg
            if any(isinstance(read, ast.Name) and read.id == name for read in map(_read_of, ast.walk(each))):
                yield each.name


def _read_of(node: ast.AST) -> ast.expr | None:
    """What names the variable that a node reads; None when it reads none."""
    if isinstance(node, ast.Subscript) and _is_environ(node.value):
        return node.slice
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return node.args[0] if _is_environ(node.func.value) or node.func.attr == "getenv" else None
    return None


def _unconditional(node: ast.AST) -> Iterator[ast.AST]:
    """What is run whenever the module is: nothing within a condition, a loop, a `try` or a function."""
    yield node
    if isinstance(node, ast.If | ast.IfExp):
        yield from _unconditional(node.test)
    elif not isinstance(node, ast.For | ast.While | ast.Try | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _unconditional(child)


def _note(found: Module, node: ast.AST, guarded: set[str]) -> None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        found.texts.append(node.value)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            _assign(found, target, node.value)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        _assign(found, node.target, node.value)
    elif isinstance(node, ast.ImportFrom):
        if any(alias.name == "*" for alias in node.names):
            found.stars.append((node.level, node.module or ""))
        if node.module and not node.level:
            found.imports.append(node.module)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_environ(node.value):
        _needs(found, _text(node.slice), True)
    elif isinstance(node, ast.Compare) and (compared := _compared(node)):
        found.truths.setdefault(*compared)
    elif isinstance(node, ast.Compare) and any(isinstance(sign, ast.In | ast.NotIn) for sign in node.ops):
        if any(_is_environ(each) or (isinstance(each, ast.Name) and each.id == "env") for each in node.comparators):
            guarded.add(_text(node.left))
    elif isinstance(node, ast.Call):
        _call(found, node)
        if isinstance(node.func, ast.Attribute | ast.Name) and _last(node.func) == "Env":  # django-environ's scheme
            for each in node.keywords:
                _needs(found, each.arg or "", False)
                if isinstance(each.value, ast.Tuple) and isinstance(each.value.elts[-1], ast.Constant):
                    found.defaults.setdefault(each.arg or "", each.value.elts[-1].value)
                guarded |= {each.arg or ""} if isinstance(each.value, ast.Tuple) else set()


def _compared(node: ast.Compare) -> tuple[str, str] | None:
    """("DEBUG", "True") for `os.environ.get("DEBUG", "").lower() == "True"`, and for `... in ("True", "1")`."""
    read: ast.expr = node.left
    while isinstance(read, ast.Call) and isinstance(read.func, ast.Attribute) and isinstance(read.func.value, ast.Call):
        read = read.func.value
    if not (isinstance(read, ast.Call) and read.args and isinstance(node.ops[0], ast.Eq | ast.In)):
        return None
    other = node.comparators[0]
    first = other.elts[0] if isinstance(other, ast.Tuple | ast.List | ast.Set) and other.elts else other
    name, text = _text(read.args[0]), _text(first)
    return (name, text) if _VARIABLE.fullmatch(name) and text else None


def _assign(found: Module, target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Name):
        found.assigned.add(target.id)
        found.literals[target.id] = value.value if isinstance(value, ast.Constant) else None
    elif (
        isinstance(target, ast.Subscript)
        and _is_environ(target.value)
        and _text(target.slice) == "DJANGO_SETTINGS_MODULE"
    ):
        _names(found, _text(value))


def _names(found: Module, settings: str) -> None:
    """Notes DJANGO_SETTINGS_MODULE; a manage.py may name other settings for its tests."""
    if settings and not (found.settings and re.search(r"(^|[._])tests?([._]|$)", settings)):
        found.settings = settings


def _last(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id in ("environ", "ENV")
    )


def _needs(found: Module, name: str, needed: bool) -> None:
    """Notes a reading. One that does without the variable shows that it may be missing."""
    if _VARIABLE.fullmatch(name):
        found.env[name] = found.env.get(name, True) and needed


def _call(found: Module, node: ast.Call) -> None:
    function = node.func
    first = _text(node.args[0]) if node.args else ""
    default = len(node.args) > 1 or any(each.arg == "default" for each in node.keywords)
    stands = next((each.value for each in node.keywords if each.arg == "default"), None)
    stands = stands or (node.args[1] if len(node.args) > 1 else None)
    if _VARIABLE.fullmatch(first) and isinstance(stands, ast.Constant):
        found.defaults.setdefault(first, stands.value)
    if isinstance(function, ast.Attribute):
        if _is_environ(function.value):
            if function.attr == "setdefault" and first == "DJANGO_SETTINGS_MODULE" and len(node.args) > 1:
                _names(found, _text(node.args[1]))
            elif function.attr in ("get", "pop"):
                _needs(found, first, False)
        elif function.attr == "getenv":
            _needs(found, first, False)
        elif function.attr == "run_module" and first:
            found.imports.append(f"{first}.__main__")
        elif isinstance(function.value, ast.Name) and function.value.id in ("env", "config", "environ_env"):
            implied = {
                "db": "DATABASE_URL",
                "db_url": "DATABASE_URL",
                "cache": "CACHE_URL",
                "cache_url": "CACHE_URL",
            }
            _needs(found, first or implied.get(function.attr, ""), not default)
        elif function.attr == "config" and isinstance(function.value, ast.Name) and "database_url" in function.value.id:
            named = next((_text(each.value) for each in node.keywords if each.arg == "env"), first)
            _needs(found, named or "DATABASE_URL", not default)
    elif isinstance(function, ast.Name):
        if function.id in ("env", "config"):
            _needs(found, first, not default)
        elif function.id == "getenv" or re.match(r"_?(get_)?env(_|$)", function.id):
            _needs(found, first, False)
        elif function.id in ("path", "re_path", "url") and node.args:
            found.routes.append((first, _included(node)))


def _included(node: ast.Call) -> str:
    """The module of `include("blog.urls")` in a route; "?" when it includes something that is no literal."""
    inner = node.args[1] if len(node.args) > 1 else None
    if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "include":
        target = inner.args[0] if inner.args else None
        if isinstance(target, ast.Tuple) and target.elts:
            target = target.elts[0]
        return _text(target) or "?"
    return ""


def path_of(name: str, root: str, exists: Callable[[str], bool]) -> str:
    """The file of a dotted module below `root`, or ""."""
    base = posixpath.join(root, *name.split("."))
    return next((path for path in (f"{base}.py", f"{base}/__init__.py") if exists(path)), "")


def chain(name: str, root: str, read: Callable[[str], bytes | None]) -> Iterator[Module]:
    """The settings module, then those it takes everything from (`from .base import *`), nearest first."""
    waiting, seen = [name], set[str]()
    while waiting:
        current = waiting.pop(0)
        path = path_of(current, root, lambda each: read(each) is not None)
        if not path or path in seen:
            continue
        seen.add(path)
        found = module(path, read(path) or b"")
        yield found
        package = current.split(".") if path.endswith("/__init__.py") else current.split(".")[:-1]
        for level, target in found.stars:
            base = package[: len(package) - level + 1] if level else []
            waiting.append(".".join([*base, *([target] if target else [])]))
