"""An app's source on its way to the host: the controller is asked for what the host lacks, if there is room for it.

Files come into a folder of the run's own, without the host's lock: a controller that stops sending holds up itself.
A lock on the folder says that its run is alive: the kernel frees it with the last of that run's processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Sequence

from deploykit.agent import paths, release, wire
from deploykit.agent.deployment import Deployment
from deploykit.agent.resource import Failed


class Parcel:
    """What one run has received. Made under the host's lock, so that no other run takes its folder for a dead run's."""

    def __init__(self, run: str) -> None:
        self.folder = paths.INCOMING / run
        self.listings: dict[str, release.Listing] = {}
        self.folder.mkdir(mode=0o700, parents=True)
        self._handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def lacks(self, deployments: Sequence[Deployment]) -> list[Deployment]:
        """Those of which something must still be sent."""
        return [each for each in deployments if each.app not in self.listings or self._missing(each)]

    def _missing(self, deployment: Deployment) -> list[str]:
        shas = release.missing(deployment, self.listings[deployment.app])
        return [sha for sha in shas if not (self.folder / sha).exists()]

    def fetch(self, deployment: Deployment) -> None:
        """Asks the controller for the tree, then for those files that the host lacks. Raises Failed and wire.Gone."""
        wire.send({"event": "tree", "app": deployment.app, "tree": deployment.tree})
        listing: release.Listing = [(path, mode, size, sha) for path, mode, size, sha in wire.receive()["files"]]
        self.listings[deployment.app] = listing
        shas = self._missing(deployment)
        sizes = {sha: size for _, _, size, sha in listing}
        needed = sum(sizes[sha] for sha in shas) // 2**20
        free = _free()
        if needed * 2 + 50 > free:
            raise Failed(
                f"the disk is too full for the source of {deployment.app}: {needed} MiB to send, {free} MiB free",
                todo="free some disk space, or leave files out with `exclude`",
            )
        wire.send({"event": "want", "app": deployment.app, "files": shas, "bytes": sum(sizes[sha] for sha in shas)})
        if shas:
            wire.receive_files(shas, sizes, self.folder)

    def close(self) -> None:
        """This process has nothing more to do with it; one that inherited it has."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def drop(self) -> None:
        """Removes it, unless another process has it now."""
        if self._handle >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.close()


def full() -> Failed | None:
    """What to say of a full disk, before anything is changed; None: there is room to begin."""
    free = _free()
    if free >= 100:
        return None
    return Failed(f"the disk is full: {free} MiB are free on /", todo="free at least 100 MiB, then deploy again")


def _free() -> int:
    """MiB of the disk."""
    return shutil.disk_usage(paths.STATE).free // 2**20


def sweep(names: Sequence[str]) -> None:
    """Removes what dead runs left of these names in the folder of what is received. Under the host's lock only."""
    for name in names:
        place = paths.INCOMING / name
        try:
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            with contextlib.suppress(OSError):  # a file that an earlier deploykit has received
                place.unlink()
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
        except OSError:
            continue  # its run lives
        finally:
            os.close(handle)
