"""An app's source on its way to the host: the controller is asked for what the host lacks, if there is room for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploykit.agent import paths, release, wire
from deploykit.agent.deployment import Deployment
from deploykit.agent.resource import Failed


def room() -> None:
    """A full disk is told before anything is changed, not by the first program that stumbles over it."""
    free = _free()
    if free < 100:
        raise Failed(f"the disk is full: {free} MiB are free on /", todo="free at least 100 MiB, then deploy again")


def fetch(deployment: Deployment, received: Path) -> release.Listing:
    """Asks the controller for the tree, then for those files that the host lacks: they come into `received`."""
    wire.send({"event": "tree", "app": deployment.app, "tree": deployment.tree})
    listing: release.Listing = [(path, mode, size, sha) for path, mode, size, sha in wire.receive()["files"]]
    shas = release.missing(deployment, listing)
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
        wire.receive_files(shas, sizes, received)
    return listing


def _free() -> int:
    """MiB of the disk."""
    return shutil.disk_usage(paths.STATE).free // 2**20
