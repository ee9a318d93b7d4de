"""What `deploy` and `status` show at their end: the agent's answers as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploykit.screen import Screen, moment, number, span

if TYPE_CHECKING:
    from deploykit.config import Project
    from deploykit.config.project import AppEntry
    from deploykit.model.events import Event
    from deploykit.operations import Outcome


def receipt(show: Screen, project: Project, outcomes: Sequence[Outcome]) -> None:
    """What a deploy has brought live, and where to look at it."""
    if not outcomes:
        return
    rows = []
    for outcome in outcomes:
        for event in outcome.deployed:
            app = project.app(event["app"]) if event["app"] in project.names else None
            scheme = "https" if app and app.tls else "http"
            port = "" if not app or app.nginx else f":{app.port}"
            urls = " ".join(f"{scheme}://{domain}{port}/" for domain in app.domains) if app else ""
            rows.append([event["app"], event["release"], f"{event.get('seconds', 0):.1f} s", outcome.host, urls])
    show.table("", ["app", "release", "took", "host", "answers on"], rows)


def status(show: Screen, name: str, answer: Event) -> None:
    """A host at a glance, from the agent's answer: sizes in MiB, times in seconds."""
    host = answer["host"]
    show.line(
        f"{name}: {host['system']}, {host['processors']} CPUs, load {host['load']:.2f}, "
        f"memory {host['memory'] - host['available']}/{host['memory']} MiB used, "
        f"disk {(host['disk'] - host['free']) // 1024}/{host['disk'] // 1024} GiB used",
        "bold",
    )
    rows = []
    for app in answer["apps"]:
        up = f"{app['processes']}, up {span(app['uptime'])}" if app["uptime"] else ""
        state = app["process"].lower()
        rows.append(
            [
                app["app"],
                f"{app['release']} ({app['label']})" if app["label"] else app["release"] or "none",
                span(time.time() - app["at"]) if app["at"] else "",
                up if state == "running" and up else state,
                f"{app['memory']} MiB",
                f"{app['size']} MiB",
            ]
        )
    if rows:
        show.table("", ["app", "release", "live for", "processes", "memory", "disk"], rows)
        _processes(show, answer["apps"])
        _schedules(show, answer["apps"])
    else:
        show.line("no apps yet: `fab deploy` brings them")
    for app in answer["apps"]:
        earlier = [each for each in reversed(app["releases"]) if each["release"] != app["release"]]
        if earlier:
            kept = ", ".join(f"{each['release']} ({moment(each['at'])})" for each in earlier)
            show.line(f"{app['app']} can go back to: {kept}")
    last = answer["journal"]
    if last:
        how = "ended well" if last["ok"] else "failed"
        what = "deploy" if last["operation"] == "apply" else last["operation"]
        changes = number(last["changed"], "change")
        show.line(f"last run: {what} by {last['who']} at {moment(last['at'])}, {changes}, {how}")


def secrets(show: Screen, name: str, app: AppEntry, answer: Event) -> None:
    """The secrets of an app on a host: their names, since when they are there, and whether the app has them."""
    there = answer["names"]
    asked = {*app.secrets, *answer["used"]}
    rows = []
    for each in sorted({*there, *app.secrets}):
        at = answer["at"].get(each)
        if each not in there and each in app.invented:
            since = "made at the next deploy"
        elif each not in there:
            since = f"missing: fab secrets set --app {app.name} --name {each}"
        else:
            since = moment(at) if at else "some time ago"
        rows.append([each, since, "yes" if each in asked else "no"])
    show.line(f"{app.name}: {', '.join(there) if there else 'no secrets'}", "", name)
    if rows:
        show.table("", ["secret", "since", "in use"], rows)


def _processes(show: Screen, apps: Sequence[Event]) -> None:
    rows = []
    for app in apps:
        for each in app["programs"]:
            state = "crashing, tried again" if each["state"] == "BACKOFF" else each["state"].lower()
            up = f"up {span(each['uptime'])}" if each["state"] == "RUNNING" else state
            rows.append([app["app"], each["name"], up, f"{each['memory']} MiB"])
    if rows:
        show.table("", ["app", "process", "state", "memory"], rows)


def _schedules(show: Screen, apps: Sequence[Event]) -> None:
    rows = []
    for app in apps:
        for each in app["schedule"]:
            how = {"success": "well", "": ""}.get(each["result"], f"failed: {each['result']} {each['status']}")
            last = f"{each['last']}, {how}" if each["last"] else "not yet"
            rows.append(
                [
                    app["app"],
                    each["name"],
                    "runs now" if each["running"] else last,
                    each["next"] if each["on"] else "off",
                ]
            )
    if rows:
        show.table("", ["app", "schedule", "last run", "next run"], rows)
