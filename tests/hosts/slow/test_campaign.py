"""200 seeds of the campaign of faults, on one host. Last result: of the first twenty 18 passed, on
a busy machine; 10 and 12 failed by faults of the harness that are mended since. Not run to its end yet.

Some of them: `pytest tests/hosts/slow/test_campaign.py -k 'seed57- or seed58-' -s`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..faults.campaign import Campaign, named, standing

pytestmark = pytest.mark.only("nspawn", "power is switched off, the disk is small, the network is cut")


@pytest.fixture(scope="module")
def campaign(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with standing("ledgs", tmp_path_factory.mktemp("ledgs")) as found:
        yield found


@pytest.mark.parametrize("number", range(200), ids=named)
def test_a_fault_leaves_nothing_behind(campaign: Campaign, number: int) -> None:
    campaign.run(number)
