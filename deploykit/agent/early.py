"""What needs no other change of the host is begun while apt works: fetching uv, then building the apps' releases.

Nothing of it must succeed: what cannot be begun here, or fails, is done (and its failure told) when its turn comes.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploykit.agent import release, transaction, virtualenv
from deploykit.agent.deployment import Deployment
from deploykit.agent.resource import Resource
from deploykit.agent.resources.packages import status


@contextlib.contextmanager
def begun(
    resources: Sequence[Resource],
    deployments: Sequence[Deployment],
    listings: Mapping[str, release.Listing],
    received: Path,
    stage: transaction.Stage,
    line: transaction.Line,
) -> Iterator[None]:
    """Meanwhile, in a thread. `listings` are those of the apps whose code is new, `received` their files."""
    ahead = [each for each in resources if each.ahead and each.observe() is None]
    # A build that is the user's own may need what apt is still at, and the files of a slot, which come with its turn.
    due = [each for each in deployments if each.app in listings and not each.builds and not each.configured]
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(Exception):  # its turn comes; then it is told
            for resource in ahead:
                resource.prepare()
        for deployment in due:
            with contextlib.suppress(Exception):
                if _ready(deployment, ended):
                    transaction.prepare(deployment, listings[deployment.app], received, stage, line)

    thread = threading.Thread(target=work)
    if ahead:  # else there is nothing to wait for meanwhile: the apps' turn comes at once
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if ahead:
            thread.join()


def _ready(deployment: Deployment, ended: threading.Event) -> bool:
    """Waits for what earlier resources make, accounts, folders and its own packages; False: it is too late to begin."""
    while not ended.is_set():
        with contextlib.suppress(KeyError):
            pwd.getpwnam(deployment.app)
            pwd.getpwnam(virtualenv.BUILDER)
            places = (virtualenv.SHARED, deployment.home / "releases", deployment.home / "home")
            there = os.access(deployment.venv.uv, os.X_OK) and all(each.is_dir() for each in places)
            if there and all(status(name) == "installed" for name in deployment.apt):
                return True
        time.sleep(0.1)
    return False
