"""What the everyday commands understand before they reach a host: times, keys, names, what nobody sets."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest
from test_detect import Memory, manage
from test_manifest import BOOKWORM

from deploykit.agent.deployment import Deployment
from deploykit.agent.values import Host
from deploykit.config import complete, loads
from deploykit.config.names import secret_name_mistake
from deploykit.detect import detect
from deploykit.errors import DeploykitError
from deploykit.manifest import build
from deploykit.since import read
from deploykit.sudo import prefix, refusal
from deploykit.task import one_app, one_host
from deploykit.terminal import _Escape
from deploykit.unset import notes

TWO = (
    '[hosts.web1]\n[hosts.web2]\n[hosts.db]\nroles = ["database"]\n'
    '[apps.blog]\nsource = "b"\ndomains = ["b.example"]\nhosts = ["web2"]\n'
    '[apps.shop]\nsource = "s"\ndomains = ["s.example"]\n'
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("10 min", 600), ("2h", 7200), ("3 days ago", 259_200), ("1w", 604_800)],
)
def test_since_so_long_ago(text: str, seconds: int) -> None:
    assert read(text) == {"ago": seconds}


def test_since_a_time_in_our_own_zone() -> None:
    assert read("2026-01-31T12:00") == {"since": datetime(2026, 1, 31, 12, 0).timestamp()}
    assert read("2026-01-31 12:00:00+00:00") == read("2026-01-31T12:00:00Z") == {"since": 1769860800.0}
    today = datetime.now().replace(hour=9, minute=5, second=0, microsecond=0)
    assert abs(read("9:05")["since"] - today.timestamp()) <= 86_400 and read("00:00")["since"] <= time.time()
    for wrong in ("soon", "", "10", "10x", "25:00", "2026-13-01"):
        with pytest.raises(DeploykitError) as caught:
            read(wrong)
        assert caught.value.where == "--since" and "10m" in caught.value.todo


@pytest.mark.parametrize(
    ("typed", "sent", "leaves"),
    [
        (["ab\rc"], "ab\rc", False),
        (["~."], "", True),
        (["x~."], "x~.", False),
        (["ls\r", "~", "."], "ls\r", True),
        (["ls\r", "~", "x"], "ls\r~x", False),
        (["\r~~."], "\r~.", False),
        (["\r~\r~."], "\r~\r", True),
        (["\x03\x04"], "\x03\x04", False),
    ],
)
def test_the_way_out_of_a_session(typed: list[str], sent: str, leaves: bool) -> None:
    escape = _Escape()
    assert b"".join(escape.filter(each.encode()) for each in typed).decode() == sent
    assert escape.leaves == leaves


def test_one_app_and_one_host() -> None:
    project = loads(TWO, Path("/x/deploykit.toml"))
    assert one_app(project, "blog") == "blog"
    assert one_host(None, project, "", "blog").name == "web2", "the only one that runs it"
    assert one_host(None, project, "web1", "shop").name == "web1"
    assert one_host(None, project, "root@203.0.113.9", "blog").address == "203.0.113.9"
    for host, app, words in (
        ("", "shop", "shop runs on 2 hosts"),
        ("web1", "blog", "blog does not run on host web1"),
        ("web1,web2", "shop", "are 2 hosts"),
        ("db", "shop", "shop does not run on host db"),
    ):
        with pytest.raises(DeploykitError, match=words):
            one_host(None, project, host, app)
    for app, words in (("", "which app"), ("blog,shop", "several apps"), ("nothing", 'no app "nothing"')):
        with pytest.raises(DeploykitError, match=words):
            one_app(project, app)


@pytest.mark.parametrize("name", ["A", "STRIPE_KEY", "_x9", "lower"])
def test_names_of_secrets(name: str) -> None:
    assert secret_name_mistake(name) == ""


@pytest.mark.parametrize("name", ["", "9A", "A B", "A-B", "A\n", "Ä", "A=B", "$A"])
def test_what_is_no_name_of_a_secret(name: str) -> None:
    assert secret_name_mistake(name)


def test_becoming_root() -> None:
    assert prefix("root", password=True) == "" and prefix("anna", password=False) == "sudo -n "
    assert refusal("root", 1, "sudo: a password is required", "host x") is None
    assert refusal("anna", 1, "bash: no such file", "host x") is None
    denied = refusal("anna", 1, "anna is not in the sudoers file. sudo: x", "host x")
    assert denied is not None and "may not become root" in denied.what


def test_variables_that_nobody_sets() -> None:
    settings = (
        'import os\nA = os.environ["STRIPE_KEY"]\nB = os.environ.get("LOG_LEVEL", "INFO")\n'
        'if B == "x":\n    C = os.environ["S3_KEY"]\nD = os.environ["SECRET_KEY"]\nE = os.environ["MINE"]\n'
        'def later():\n    return os.environ["LATER"]\n'
    )
    files = {"manage.py": manage("site1.settings"), "site1/settings.py": settings, "site1/wsgi.py": ""}
    tree = Memory({**files, "requirements.txt": ""})
    project = loads('[hosts.h]\n[apps.blog]\nsource = "b"\ndomains = ["b.example"]\n[apps.blog.env]\nMINE = "x"\n',
                    Path("/x/deploykit.toml"))  # fmt: skip
    host: Host = complete(project, project.hosts[0], {"blog": tree})
    deployments: tuple[Deployment, ...] = build(host, BOOKWORM, Path("/x")).deployments
    warnings, asides = notes(deployments, {"blog": detect(tree)})
    assert [each.text for each in warnings] == [
        "blog: the settings read STRIPE_KEY, which nobody sets: "
        '[apps.blog.env] STRIPE_KEY = { secret = "STRIPE_KEY" } or = "..."'
    ]
    assert [each.text for each in asides] == ["blog: the settings also read, if they are set: LATER, LOG_LEVEL, S3_KEY"]
    assert warnings[0].warning and not asides[0].warning
