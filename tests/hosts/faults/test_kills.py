"""A daemon that is killed is back by itself. What it costs is printed: docs/how-it-works.md has the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .campaign import Campaign, standing
from .kills import DAEMONS, cost

pytestmark = pytest.mark.only("nspawn", "it shares what boots the campaign's hosts")

#: Visitors notice nothing of these.
FREE = ("supervisord", "sshd", "Redis", "a worker of the queue", "a scheduler")


@pytest.fixture(scope="module")
def campaign(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with standing("kills", tmp_path_factory.mktemp("kills"), calm=False) as found:
        yield found


@pytest.mark.parametrize("daemon", DAEMONS, ids=lambda name: name.replace(" ", "-"))
def test_what_was_killed_is_back_by_itself(campaign: Campaign, daemon: str) -> None:
    found = cost(campaign, daemon)
    print(found)
    assert found.answers, f"the site does not answer again by itself: {found}"
    assert found.seconds is not None, f"it is not there again by itself: {found}"
    if daemon in FREE:
        assert found.lost == 0, found
