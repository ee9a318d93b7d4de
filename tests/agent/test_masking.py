"""No secret leaves the host, in whatever dress: what is known as one, and where it is taken out."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import masking, paths, runs, secret, store, wire
from deploykit.agent.deployment import Deployment
from deploykit.agent.envfile import EnvFile
from deploykit.agent.resource import Secret, decode, encode
from deploykit.agent.secret import HostSecret

from .test_wire import BLOG, Agent, agent  # noqa: F401 - a fixture

KEY = "pay/key+'1\"<é %&\\x"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASC\n-----END KEY-----\n"


@pytest.fixture(autouse=True)
def nothing_known(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secret, "known", set())
    monkeypatch.setattr(masking, "_kept", None)
    monkeypatch.setattr(masking, "_made", (-1, ()))
    yield


DRESSES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "in a list": lambda value: repr([value, "it's"]),
    "in a text with both quotes": lambda value: repr(f'"it\'s" {value}'),
    "ascii": ascii,
    "json": json.dumps,
    "json in Unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "percent": lambda value: urllib.parse.quote(value, safe=""),
    "percent but slashes": urllib.parse.quote,
    "percent in lower case": lambda value: re.sub("%..", lambda at: at[0].lower(), urllib.parse.quote(value, safe="")),
    "form": urllib.parse.quote_plus,
    "shell": shlex.quote,
    "sh -x": lambda value: "'" + value.replace("'", "'\\''") + "'",
    "html": html.escape,
    "supervisor": lambda value: value.replace("%", "%%"),
    "bytes": lambda value: repr(value.encode()),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "basic auth": lambda value: "Basic " + base64.b64encode(f"ann:{value}".encode()).decode(),
    "basic auth, other name": lambda value: "Basic " + base64.b64encode(f"anna:{value}".encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(f"a:{value}:b".encode()).decode(),
}


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("value", [KEY, "hunter2", "sécret-ключ", "a b c d e f", "x" * 200, "%41%42%43", "\\\\n\\\\t'"])
def test_in_every_dress(value: str, dress: str) -> None:
    secret.known.add(value)
    said = masking.text(f"before {DRESSES[dress](value)} after")
    assert said.startswith("before ") and said.endswith(" after") and "(secret)" in said
    for other in DRESSES.values():
        worn = other(value).strip("'\"b[]")
        assert worn not in said, f"{worn} in {said}"


def test_each_line_of_many() -> None:
    secret.known.add(PEM)
    said = masking.masked({"event": "output", "line": "  MIIEvQIBADANBgkqh\n+ kiG9w0BAQEFAASC"})
    assert said == {"event": "output", "line": "  (secret)\n+ (secret)"}


def test_the_password_of_an_address() -> None:
    secret.known.add("postgres://blog:p%40ss-word@db.example:5432/blog")
    assert (
        masking.text("password p@ss-word or p%40ss-word, at db.example")
        == "password (secret) or (secret), at db.example"
    )


def test_short_ones_are_left() -> None:
    secret.known |= {"abcde", ""}
    assert masking.text("abcde") == "abcde"


def test_what_a_controller_goes_by_is_left() -> None:
    """A secret has the text of an app's name."""
    secret.known.add("memories")
    event = {
        "event": "plan",
        "changes": [{"key": "app memories", "verb": "change", "app": "memories", "actions": ["restart memories"]}],
        "kept": [],
    }
    assert masking.masked(event)["changes"] == [
        {"key": "app (secret)", "verb": "change", "app": "memories", "actions": ["restart (secret)"]}
    ]


# -- what is known as a secret -----------------------------------------------------------------------


def hidden(value: str) -> bool:
    return masking.text(f"<{value}>") == "<(secret)>"


def test_what_the_manifest_says_is_one() -> None:
    decode(encode(EnvFile(path="/x", variables=(("A", Secret("from-the-manifest")),))))
    assert hidden("from-the-manifest")


def test_what_the_store_has_is_one() -> None:
    store.write("blog", "A", Secret("in-the-store"))
    assert hidden("in-the-store")
    secret.known.clear()
    masking._kept = None
    assert hidden("in-the-store"), "known from the file alone"


def test_what_is_made_later_is_one(state: Path) -> None:
    assert not hidden("anything")
    made = store.ensure("blog", HostSecret("B", make=30)).reveal()
    assert hidden(made)
    secret.known.clear()
    masking._made = (-1, ())
    assert store.look("blog", HostSecret("B")) == Secret(made) and hidden(made)


def test_what_a_record_and_a_running_app_have_is_one(tmp_path: Path) -> None:
    """Since then it was given another value; and one of the user's own is in no store."""
    place = tmp_path / "blog.env"
    place.write_text("export A='the-old-value'\nexport B=plain-text\n")
    file = EnvFile(
        path=str(place), variables=(("A", HostSecret("A")), ("B", "plain-text"), ("C", Secret("of-the-user")))
    )
    deployment = Deployment(**{**vars(BLOG), "slot_a": (file,)})
    paths.write_json(paths.APPS / "blog.json", {"releases": [{"deployment": encode(deployment)}]})
    assert hidden("the-old-value") and hidden("of-the-user") and not hidden("plain-text")


@pytest.mark.parametrize("text", ["", "[", "[]", "7", '{"releases": 7}', '{"secret": {"secret": [7]}}'])
def test_a_damaged_record_is_no_fault(text: str) -> None:
    for folder in (paths.APPS, paths.SECRETS):
        folder.mkdir()
        (folder / "blog.json").write_text(text)
    assert masking.text("said") == "said"


# -- where they are taken out ------------------------------------------------------------------------


def test_in_what_is_sent_and_in_what_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    store.write("blog", "A", Secret("hush-hush"))
    events: list[dict[str, Any]] = [
        {"event": "error", "what": "hush-hush", "detail": "a hush-hush", "todo": ""},
        {"event": "log", "app": "blog", "from": "", "line": "hush-hush"},
        {"event": "plan", "changes": [{"key": "hush-hush"}], "kept": []},
        {"event": "status", "apps": [{"app": "blog", "releases": [{"label": "hush-hush"}]}]},
    ]
    run = runs.Run("1")
    run.create()
    for each in events:
        wire.send(each)
        run.write(each)
    runs.note({"who": "ann", "operation": "apply"}, 1, True, 0, ["create hush-hush"])
    for text in (capfd.readouterr().out, run.path.read_text(), paths.JOURNAL.read_text()):
        assert "(secret)" in text and "hush-hush" not in text


def test_in_a_traceback(agent: Callable[..., Agent], state: Path) -> None:
    store.write("blog", "A", Secret("hush-hush"))
    broken = agent()
    broken.ask("hush-hush")
    said = broken.end(1)
    assert "KeyError: '(secret)'" in said and "hush-hush" not in said


def test_nothing_of_it_is_loaded_where_nothing_is_said() -> None:
    program = (
        "import sys; from deploykit.agent import wire\n"
        "for each in ({'event': 'plan', 'changes': [], 'kept': []}, {'event': 'end', 'ok': True},"
        " {'event': 'facts', 'facts': {}}): wire.line(each)\n"
        "assert 'deploykit.agent.masking' not in sys.modules\n"
        "wire.line({'event': 'progress', 'line': 'x'})\n"
        "assert 'deploykit.agent.masking' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
