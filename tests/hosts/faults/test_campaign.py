"""The first ten seeds of the campaign; slow/test_campaign.py has two hundred."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .campaign import Campaign, named, standing

pytestmark = pytest.mark.only("nspawn", "power is switched off, the disk is small, the network is cut")


@pytest.fixture(scope="module")
def campaign(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with standing("ledga", tmp_path_factory.mktemp("ledga")) as found:
        yield found


@pytest.mark.parametrize("number", range(0, 10), ids=named)
def test_a_fault_leaves_nothing_behind(campaign: Campaign, number: int) -> None:
    campaign.run(number)
