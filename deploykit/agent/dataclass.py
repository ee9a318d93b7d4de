"""`@dataclass(frozen=True)` as in the standard library, without its cost at every start.

The library writes the methods of each class as source text and compiles that when the module is imported: 0.7 ms a
class, 0.06 s of every command, and as much again of the agent: more than anything else that they did of their own. Here
all classes share their methods, which read the fields instead. To everybody else (`fields`, `replace`, `asdict`, a
subclass made with the library's own decorator, pydantic, mypy) they are dataclasses as any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, kw_only: bool = False) -> Callable[[type], type]:
        """Makes a class whose instances are compared by value and never changed."""
        if not frozen:
            raise TypeError("what may change is a `dataclasses.dataclass`")
        return lambda kind: _made(kind, kw_only)


@dataclasses.dataclass(frozen=True)
class _Model:
    """What the library writes into a frozen dataclass beside its methods is taken from this one."""

    field: object = None


_FIELD = _Model.__dataclass_fields__["field"]._field_type  # type: ignore[attr-defined]  # by it `fields` knows its own


def _made(kind: Any, kw_only: bool) -> Any:
    fields: dict[str, Field[Any]] = {}
    for base in reversed(kind.__mro__[1:]):
        fields |= base.__dict__.get("__dataclass_fields__", {})
    for name, annotation in kind.__annotations__.items():
        if str(annotation).startswith(("ClassVar", "typing.ClassVar")):
            continue
        default = kind.__dict__.get(name, MISSING)
        field: Any = default if isinstance(default, Field) else dataclasses.field(default=default)
        field.name, field.type, field.kw_only, field._field_type = name, annotation, kw_only, _FIELD
        fields[name] = field
        if field.default is not MISSING:
            setattr(kind, name, field.default)
        elif default is not MISSING:
            delattr(kind, name)  # a factory's field has no value on the class
    kind.__dataclass_fields__ = fields
    kind.__dataclass_params__ = _Model.__dataclass_params__  # type: ignore[attr-defined]
    kind.__match_args__ = tuple(name for name, field in fields.items() if not field.kw_only)  # type: ignore[misc]
    for method in (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__):
        if method.__name__ not in kind.__dict__ or (method is __hash__ and kind.__dict__["__hash__"] is None):
            setattr(kind, method.__name__, method)
    return kind


def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
    kind = type(self)
    fields: Mapping[str, Field[Any]] = kind.__dataclass_fields__
    values = self.__dict__
    if args:
        if len(args) > len(kind.__match_args__):
            raise TypeError(f"{kind.__name__}() takes {len(kind.__match_args__)} positional arguments, got {len(args)}")
        for name, value in zip(kind.__match_args__, args, strict=False):
            if name in kwargs:
                raise TypeError(f"{kind.__name__}() got {name!r} twice")
            kwargs[name] = value
    for name, field in fields.items():  # in their order, so that equal values hash alike
        if name in kwargs:
            values[name] = kwargs.pop(name)
        elif field.default is not MISSING:
            values[name] = field.default
        elif field.default_factory is not MISSING:
            values[name] = field.default_factory()
        else:
            raise TypeError(f"{kind.__name__}() lacks the argument {name!r}")
    if kwargs:
        raise TypeError(f"{kind.__name__}() has no field {next(iter(kwargs))!r}")
    if after := getattr(self, "__post_init__", None):
        after()


def __repr__(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, field in self.__dataclass_fields__.items() if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def __eq__(self: Any, other: object) -> bool:
    return bool(_values(self) == _values(other)) if type(self) is type(other) else NotImplemented


def __hash__(self: Any) -> int:
    return hash(_values(self))


def _values(value: Any) -> tuple[Any, ...]:
    """Of the fields; what `functools.cached_property` keeps beside them is none."""
    return tuple([value.__dict__[name] for name in value.__dataclass_fields__])


def __setattr__(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def __delattr__(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
