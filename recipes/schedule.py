"""Schedules: a systemd timer for each command that runs by the clock, as the app's user with the app's environment.

systemd keeps the output (journal), the last result and the next run, never lets a run overlap itself, and makes up for
missed ones: systemd.timer(5). What runs is said by the live release's own file (recipes/programs.py), so a rollback
brings the command back that it had.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Action, Render, Resource
from deploykit.agent.resources import REREAD, File, Service
from deploykit.agent.values import App, Facts, Host, Schedule
from deploykit.recipes.programs import IN_APP


def unit(app: App, timed: Schedule) -> str:
    """The units' name without its suffix: apps' names have no dot, so no two are alike."""
    return f"deploykit-{app.name}.{timed.name}"


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """The timers of all apps."""
    for app in host.apps:
        for timed in app.schedule:
            name = unit(app, timed)
            values = {"app": app, "timed": timed, "unit": name, "in_app": IN_APP}
            place = f"/etc/systemd/system/{name}"
            anew = Action(
                f"restart {name}.timer", (("systemctl", "restart", f"{name}.timer"),), needs=f"service {name}.timer"
            )
            text = render("schedule/service.j2", **values)
            yield File(f"{place}.service", text, actions=(REREAD,), app=app.name)
            text = render("schedule/timer.j2", **values)
            yield File(f"{place}.timer", text, actions=(REREAD, anew), app=app.name)
            yield Service(f"{name}.timer", app=app.name)
