"""A fault, and a kill, at each single system call of the switch and of what follows it, on files of this machine.

Whatever call it is: after the way back the host is as it was before, and after a kill the same switch again ends as if
nothing had happened. What nginx connects by is there and leads to a slot at each of these moments.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import kept_releases, paths, slots
from deploykit.agent.deployment import Deployment, Health, Venv, record
from deploykit.model import layout

APP, OLD, NEW, OLDER = "blog", "r1", "r2", "r0"

RECORD = f"var/lib/deploykit/apps/{APP}.json"

#: The calls by which Python changes a file system.
CALLS = (
    "open",
    "write",
    "fsync",
    "fchmod",
    "replace",
    "rename",
    "symlink",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "chmod",
)


class Killed(BaseException):
    """The process ends here: nothing after this call is done."""


class Faults:
    """Counts the calls; at the chosen one something happens in its place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self._at = 0, -1
        self._what: type[BaseException] = Killed
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **values: Any) -> Any:
            changes = call.__name__ != "open" or arguments[1] & (os.O_WRONLY | os.O_RDWR)
            if changes:
                self.count += 1
                if self.count == self._at:
                    raise self._what if self._what is Killed else OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments, **values)

        return wrapped

    def at(self, number: int, what: type[BaseException]) -> None:
        self.count, self._at, self._what = 0, number, what

    def none(self) -> None:
        self.at(-1, Killed)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with monkeypatch.context() as patched:
        yield Faults(patched)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes a host on which r1 is live in slot a, r0 was before it, and r2 has proved itself in slot b."""
    count = 0

    def make() -> Path:
        nonlocal count
        count += 1
        top = tmp_path / str(count)
        monkeypatch.setattr(layout, "ROOT", top)
        monkeypatch.setattr(paths, "APPS", top / "var/lib/deploykit/apps")
        for folder in (layout.sockets(APP), layout.etc(), layout.boot(APP).parent, paths.APPS):
            folder.mkdir(parents=True)
        for name in (OLDER, OLD, NEW):
            layout.release(APP, name).mkdir(parents=True)
        slots.point(layout.previous_release(APP), f"releases/{OLDER}")
        state = {"live": "a", "slots": {"a": OLD}, "sockets": {"a": ["ws"]}, "releases": []}
        paths.write_json(paths.APPS / f"{APP}.json", state)
        slots.switch(APP, OLD, "a")
        state = record(APP)
        state["slots"]["b"], state["sockets"]["b"] = NEW, ["ws"]
        paths.write_json(paths.APPS / f"{APP}.json", state)
        return top

    return make


def deployment() -> Deployment:
    venv = Venv(key="k", uv="/uv", environment=(), python="3.11", kind="none", files=(), extra=())
    health = Health(path="/", host="blog.example", scheme="http", strict=False, proxy=True)
    return Deployment(
        app=APP, release=NEW, tree="t", label="l", root="", venv=venv, slot_a=(), slot_b=(), health=health,
        database="none", database_name="", keep=5,
    )  # fmt: skip


def switched() -> None:
    slots.switch(APP, NEW, "b")
    kept_releases.remember(deployment())


def seen(top: Path) -> dict[str, str]:
    """Everything below a folder: where links lead, what files say."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            place = Path(folder, name)
            text = os.readlink(place) if place.is_symlink() else place.read_text() if place.is_file() else "/"
            if place.name == f"{APP}.json":
                text = str([text[: text.index('"releases"')], [each["release"] for each in record(APP)["releases"]]])
            found[str(place.relative_to(top))] = text.replace(str(top), "")
    return found


def led(slot: str) -> bool:
    return all(os.readlink(layout.socket(APP, "live", name)).startswith(f"{slot}.") for name in ("", "ws"))


def steps(faults: Faults, hosts: Callable[[], Path]) -> int:
    hosts()
    faults.none()
    switched()
    assert faults.count > 30, "each link and each file takes several"
    return faults.count


def test_what_fails_anywhere_is_taken_back(faults: Faults, hosts: Callable[[], Path]) -> None:
    before = seen(hosts())
    failed = 0
    for number in range(1, steps(faults, hosts) + 1):
        top = hosts()
        previous = os.readlink(layout.previous_release(APP))
        faults.at(number, OSError)
        try:
            switched()
        except OSError:
            failed += 1
        else:
            assert led("b"), "a folder that is there already needs no mkdir"
        assert layout.socket(APP, "live").is_symlink() and layout.live_release(APP).exists(), number
        faults.none()
        slots.switch_back(APP, OLD, "a", previous)
        assert led("a") and {**seen(top), RECORD: ""} == {**before, RECORD: ""}, number
        assert record(APP)["live"] == "a"
    assert failed > 30


def test_visitors_are_led_back_while_the_disk_is_still_full(faults: Faults, hosts: Callable[[], Path]) -> None:
    """/run is no disk: what nginx connects by can be led back whatever else cannot be written."""
    hosts()
    switched()
    folder = layout.boot(APP)
    folder.unlink()
    folder.mkdir()  # nothing can be written in its place
    with pytest.raises(Exception, match="not wholly live again"):
        slots.switch_back(APP, OLD, "a", f"releases/{OLDER}")
    assert led("a") and os.readlink(layout.live_release(APP)) == f"releases/{OLD}"
    assert record(APP)["live"] == "a"


def test_what_is_killed_anywhere_is_finished_by_the_next(faults: Faults, hosts: Callable[[], Path]) -> None:
    top = hosts()
    switched()
    after = seen(top)
    for number in range(1, steps(faults, hosts) + 1):
        top = hosts()
        faults.at(number, Killed)
        with pytest.raises(Killed):
            switched()
        faults.none()
        assert os.readlink(layout.socket(APP, "live")) in ("a.sock", "b.sock"), number
        assert layout.live_release(APP).exists() and layout.environment(APP).is_symlink(), number
        switched()
        assert led("b") and seen(top) == after, number
