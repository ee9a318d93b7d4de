"""A secret never shows itself, whatever makes a text of it."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from dataclasses import asdict
from typing import Any

import pytest

from deploykit.agent.plan import Change, compare, difference
from deploykit.agent.resource import encode
from deploykit.agent.resources import File
from deploykit.agent.secret import HostSecret, Secret
from deploykit.manifest import Manifest

VALUE = "correct-horse-battery"


def shown(value: object) -> list[str]:
    return [str(value), repr(value), f"{value}", f"{value!r:>20}", "%s %r" % (value, value), "{}".format(value)]  # noqa: UP031, UP032


@pytest.mark.parametrize(
    "holder",
    [
        Secret(VALUE),
        [Secret(VALUE)],
        {"a": Secret(VALUE)},
        File("/etc/x", Secret(VALUE)),
        Manifest((File("/etc/x", Secret(VALUE)),), ()),
        ValueError(Secret(VALUE)),
    ],
)
def test_no_text_shows_it(holder: object, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("t").warning("it is %s", holder)
    for text in (*shown(holder), pprint.pformat(holder), caplog.text):
        assert VALUE not in text
    assert "(secret)" in repr(holder)


def test_a_traceback_does_not_show_it() -> None:
    def fail(secret: Secret) -> None:
        raise RuntimeError(f"it was {secret}")

    try:
        fail(Secret(VALUE))
    except RuntimeError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        text = "".join(told.format())
    assert "it was (secret)" in text and VALUE not in text.replace(f'VALUE = "{VALUE}"', "")


def test_no_serialiser_takes_it_along() -> None:
    secret = Secret(VALUE)
    with pytest.raises(TypeError):
        json.dumps({"a": secret})
    assert VALUE not in json.dumps({"a": secret}, default=str)
    assert VALUE.encode() not in pickle.dumps(secret)
    assert not hasattr(secret, "__dict__")
    assert VALUE not in str(asdict(File("/etc/x", secret)))
    with pytest.raises(TypeError):
        "".join([secret])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        "a" + secret  # type: ignore[operator]


def test_a_plan_shows_that_it_changed_and_not_to_what() -> None:
    (found,) = compare({"content": Secret(VALUE)}, {"content": Secret("old-value\nof lines")})
    assert found.plain() == {"name": "content", "old": "(secret)", "new": "(secret)"}
    assert compare({"content": Secret(VALUE)}, {"content": Secret(VALUE)}) == ()
    change = Change("file /etc/x", "change", (difference("content", Secret("a\nb"), Secret(f"{VALUE}\n")),))
    assert VALUE not in json.dumps(change.plain()) and "diff" not in change.plain()["differences"][0]


def test_it_is_compared_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != "a", "a text that looks like it is not it"
    assert Secret(VALUE).reveal() == VALUE and copy.copy(Secret(VALUE)).reveal() in (VALUE, "(secret)")


def test_only_the_wire_carries_it() -> None:
    data: Any = encode(File("/etc/x", Secret(VALUE)))
    assert VALUE in json.dumps(data)
    assert HostSecret("KEY", make=9) == HostSecret("KEY", 9), "a reference holds no value at all"


def test_the_names_that_a_value_holds() -> None:
    from deploykit.agent.envfile import EnvFile
    from deploykit.agent.secret import HostSecret, Joined, names

    url = Joined(("redis://:", HostSecret("REDIS", make=20), "@127.0.0.1"))
    file = EnvFile(
        path="/x", variables=(("A", "text"), ("B", Secret("b")), ("C", HostSecret("C")), ("D", url)), app="x"
    )
    assert sorted(names((file,))) == ["C", "REDIS"]
