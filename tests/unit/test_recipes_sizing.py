"""Who gets how much memory: small machines and large ones, few apps and many."""

from __future__ import annotations

import pytest

from deploykit.agent.values import App, Code, Database, Facts, Redis, Web
from deploykit.recipes.sizing import sizes


def facts(memory: int, processors: int = 2) -> Facts:
    return Facts("debian", "12", "bookworm", "x86_64", memory, processors, "3.11")


def apps(count: int, redis: int | None = 0, **web: int) -> list[App]:
    return [
        App(
            f"app{number}",
            (f"app{number}.example",),
            Code("d"),
            "config.settings",
            database=Database(name=f"app{number}"),
            redis=None if redis is None else Redis(redis),
            web=Web(**web),
        )
        for number in range(count)
    ]


#: What machines of these sizes say of themselves: the kernel keeps some for itself.
SOLD = {512: 474, 1024: 969, 2048: 1987, 4096: 3924, 16384: 16008}


@pytest.mark.parametrize("count", [1, 3, 10, 30])
@pytest.mark.parametrize("sold", SOLD)
def test_every_size_is_sane(sold: int, count: int) -> None:
    found = sizes(facts(SOLD[sold]), apps(count))
    assert found.workers.keys() == {app for app, _ in found.stores} == {f"app{number}" for number in range(count)}
    assert all(1 <= workers <= 5 for workers in found.workers.values())
    assert found.postgres.shared_buffers <= sold // 4
    assert found.postgres.effective_cache_size < sold
    assert found.needed <= sold or found.warnings, "too much, and nobody was told"
    assert all(warning.endswith(".") for warning in found.warnings)


@pytest.mark.parametrize(
    ("sold", "count", "workers", "warned"),
    [
        (512, 1, 1, False),
        (512, 12, 1, True),
        (1024, 1, 2, False),
        (1024, 3, 1, True),
        (2048, 3, 2, False),
        (2048, 10, 1, True),
        (4096, 3, 3, False),
        (4096, 10, 2, True),
        (4096, 30, 1, True),
        (16384, 1, 4, False),
        (16384, 10, 4, False),
        (16384, 30, 1, True),
    ],
)
def test_workers(sold: int, count: int, workers: int, warned: bool) -> None:
    found = sizes(facts(SOLD[sold]), apps(count))
    assert set(found.workers.values()) == {workers}, found
    assert bool(found.warnings) == warned, found.warnings


def test_the_warning_says_what_and_what_to_do() -> None:
    (warning, *_) = sizes(facts(474), apps(12)).warnings
    assert "12 apps may need" in warning and "has 474" in warning and "more memory" in warning
    (warning, *_) = sizes(facts(969), apps(3)).warnings
    assert "each gets 1 web worker instead of 2" in warning


def test_many_connections_are_told() -> None:
    warnings = sizes(facts(32000, 8), apps(10, redis=None, workers=10, threads=4)).warnings
    assert any("may hold 400 connections" in warning for warning in warnings)


def test_what_the_user_sets_stays() -> None:
    found = sizes(facts(969), apps(3, redis=100, workers=6))
    assert set(found.workers.values()) == {6} and set(found.stores.values()) == {100}
    assert found.warnings


def test_few_processors_need_few_workers() -> None:
    assert sizes(facts(16008, processors=1), apps(1)).workers == {"app0": 3}


def test_a_kernel_update_changes_nothing() -> None:
    for sold, said in SOLD.items():
        assert sizes(facts(said), apps(2)).postgres == sizes(facts(said - 12), apps(2)).postgres, sold


def test_another_app_leaves_postgres_and_caches_as_they_are() -> None:
    few, many = sizes(facts(3924), apps(1)), sizes(facts(3924), apps(30))
    assert few.postgres == many.postgres
    assert few.stores["app0", "redis"] == many.stores["app0", "redis"]


def test_no_apps() -> None:
    assert sizes(facts(474), []).warnings == ()


def test_a_machine_larger_than_any_sold() -> None:
    assert sizes(facts(500_000, 64), apps(1)).postgres.shared_buffers == 4096
