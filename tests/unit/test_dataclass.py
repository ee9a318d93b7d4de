"""Our quick `dataclass` beside the standard library's: each test holds for both."""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import FrozenInstanceError, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from deploykit.agent import dataclass as ours


@pytest.fixture(params=["ours", "the library's"])
def made(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Classes made by one of the two."""
    # The type checker is told that ours is the library's.
    dataclass: Any = ours.dataclass if request.param == "ours" else dataclasses.dataclass

    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        tags: dict[str, str] = field(default_factory=dict, repr=False)
        count: ClassVar[int] = 7

        @functools.cached_property
        def sum(self) -> int:
            return self.x + self.y

    @dataclass(frozen=True, kw_only=True)
    class Base:
        app: str = ""

    @dataclass(frozen=True)
    class Derived(Base):
        path: str

        def __post_init__(self) -> None:
            if not self.path:
                raise ValueError("a path is needed")

    @dataclasses.dataclass(frozen=True)
    class Theirs(Derived):
        """As a user's own recipe has it."""

        mode: int = 0o644

    return SimpleNamespace(Point=Point, Base=Base, Derived=Derived, Theirs=Theirs)


def test_values_are_equal_and_hash_alike(made: SimpleNamespace) -> None:
    class Other(made.Point):  # type: ignore[misc,name-defined]
        pass

    assert made.Point(1) == made.Point(x=1, y=2)
    assert made.Point(1) != made.Point(2)
    assert made.Point(1) != Other(1)
    assert made.Derived("/a", app="x") == made.Derived(app="x", path="/a")
    assert len({made.Derived("/a", app="x"), made.Derived(app="x", path="/a"), made.Derived("/b")}) == 2


def test_what_a_cached_property_keeps_is_no_field(made: SimpleNamespace) -> None:
    first, second = made.Point(1), made.Point(1)
    assert first.sum == 3
    assert first == second
    assert "sum" not in repr(first)


def test_it_prints_its_fields(made: SimpleNamespace) -> None:
    assert repr(made.Point(1)).endswith("Point(x=1, y=2)")
    assert repr(made.Derived("/a")).endswith("Derived(app='', path='/a')")


def test_it_cannot_be_changed(made: SimpleNamespace) -> None:
    point = made.Point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, {}, 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["missing", "too many", "twice", "unknown"],
)
def test_wrong_arguments_are_refused(made: SimpleNamespace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Point"):
        made.Point(*args, **kwargs)


def test_keyword_only_fields_take_no_place(made: SimpleNamespace) -> None:
    with pytest.raises(TypeError):
        made.Base("x")
    assert made.Derived("/a").app == ""
    assert made.Derived.__match_args__ == ("path",)
    match made.Point(5, 6):
        case made.Point(x, y):
            assert (x, y) == (5, 6)


def test_it_is_looked_over_when_it_is_made(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="a path is needed"):
        made.Derived("")


def test_each_has_a_default_of_its_own(made: SimpleNamespace) -> None:
    assert made.Point(1).tags is not made.Point(1).tags
    assert not hasattr(made.Point, "tags")
    assert (made.Point.y, made.Point.count) == (2, 7)


def test_the_librarys_functions_know_it(made: SimpleNamespace) -> None:
    point = made.Point(1)
    assert dataclasses.is_dataclass(point)
    assert [each.name for each in dataclasses.fields(point)] == ["x", "y", "tags"]
    assert dataclasses.replace(point, y=5) == made.Point(1, 5)
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "tags": {}}
    assert copy.copy(point) == copy.deepcopy(point) == point


def test_the_librarys_decorator_extends_it(made: SimpleNamespace) -> None:
    theirs = made.Theirs("/a", 0o600, app="x")
    assert (theirs.path, theirs.mode, theirs.app) == ("/a", 0o600, "x")
    assert theirs == dataclasses.replace(made.Theirs("/b", 0o600, app="x"), path="/a")
    assert hash(theirs) == hash(made.Theirs("/a", 0o600, app="x"))
    with pytest.raises(FrozenInstanceError):
        theirs.mode = 1


def test_only_values_are_made_by_ours() -> None:
    with pytest.raises(TypeError, match=r"dataclasses\.dataclass"):
        ours.dataclass(frozen=False)
