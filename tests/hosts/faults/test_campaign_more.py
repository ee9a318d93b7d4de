"""Seeds 10 to 19 of the campaign: each kind of fault is in one of the first twenty, which are on two hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .campaign import Campaign, named, standing

pytestmark = pytest.mark.only("nspawn", "power is switched off, the disk is small, the network is cut")


@pytest.fixture(scope="module")
def campaign(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with standing("ledgb", tmp_path_factory.mktemp("ledgb")) as found:
        yield found


@pytest.mark.parametrize("number", range(10, 20), ids=named)
def test_a_fault_leaves_nothing_behind(campaign: Campaign, number: int) -> None:
    campaign.run(number)
