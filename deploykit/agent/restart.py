"""The same release in new processes, without a dropped request; or some processes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deploykit.agent import kept_releases, paths, supervisord, transaction
from deploykit.agent.deployment import Deployment, Program, live
from deploykit.agent.programs import Beside
from deploykit.agent.resource import Failed

Tell = Callable[[str], None]


def restart(app: str, process: str, stage: Tell, line: Tell) -> dict[str, Any]:
    """Restarts an app, or with `process` what runs by that name: what was restarted, as `release` and `processes`.

    The app as a whole, and whatever answers requests, comes up in the idle slot and is switched to, as in a deploy.
    Raises Failed; before the switch everything runs on as it did.
    """
    deployment = kept_releases.current(app)
    chosen = _chosen(deployment, process)
    if chosen and not any(each.socket for each in chosen):
        for program in chosen:  # one after the other: the others work on meanwhile
            stage(f"restart {program.name}")
            _one(deployment, program, line)
        return {"release": deployment.release, "processes": [each.name for each in chosen]}
    finish = transaction.deploy(
        deployment,
        None,
        paths.STATE,
        lambda _, name: stage(name),
        lambda _, text: line(text),
        newest=False,
        anew=True,
    )
    finish()
    return {"release": deployment.release, "processes": []}


def _chosen(deployment: Deployment, process: str) -> list[Program]:
    """The programs that `process` names ("worker", "worker-2"); none for the app as a whole."""
    if process in ("", "web"):
        return []
    found = [each for each in deployment.programs if process in (each.name, each.name.rpartition("-")[0])]
    if not found:
        names = ["web", *dict.fromkeys(each.name.rpartition("-")[0] for each in deployment.programs)]
        raise Failed(f"{deployment.app} has no process {process}", todo=f"it has: {', '.join(names)}")
    return found


def _one(deployment: Deployment, program: Program, line: Tell) -> None:
    alone = replace(deployment, programs=(program,))
    slot = live(deployment.app)
    assert slot is not None
    beside = Beside(alone, slot, line)
    line(f"{program.name} finishes what it holds, at most {program.stop:g} s")
    supervisord.add(f"{deployment.app}-{slot}.{program.name}")
    try:
        beside.steady(0, once=True)
    except Failed as failure:
        failure.todo = "supervisor tries it again and again; correct the app and deploy, or see `fab logs`"
        raise
