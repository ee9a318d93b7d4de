"""The two places a release can run in, and the switch between them that drops no request.

nginx connects to `live.sock`, a link. The new release is started in the idle slot, proved there, and then the link is
replaced by an atomic rename: nginx is not reloaded, no connection is refused. The old slot answers what it has, then
stops.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploykit.agent import launched, paths, sockets, supervisord
from deploykit.agent.attempt import attempt
from deploykit.agent.deployment import SLOTS, Deployment, boot_text, live, other, record
from deploykit.agent.process import forget, run, tail
from deploykit.agent.resource import Failed
from deploykit.model import layout

#: A traceback and those it is chained to, up to the line that names the error.
_TRACEBACK = re.compile(
    r"(?:Traceback \(most recent call last\):\n(?:[ \t].*\n)+\S.*\n\n(?:During|The above) .*\n\n)*"
    r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+\S.*"
)


class Unhealthy(Failed):
    """A release that was started and answers with an error of its own: the HTTP `status`."""

    def __init__(self, status: int, what: str, detail: str, todo: str) -> None:
        super().__init__(what, detail, todo)
        self.status = status


def point(link: Path, target: str) -> None:
    """Makes a link lead elsewhere in one step: there is no instant in which it is missing."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    try:
        os.replace(fresh, link)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    paths.sync(link.parent)


def start(deployment: Deployment, slot: str, beside: Sequence[str] = ()) -> float:
    """Starts the release in a slot and waits until it answers there as this release: in how many seconds.

    Raises Failed with its words.

    `beside`: further programs of the slot that are started with it.
    """
    app, health = deployment.app, deployment.health
    place = layout.socket(app, slot)
    if str(layout.launcher()) not in layout.supervisor(app, slot).read_text():
        raise Failed(
            f"release {deployment.release} of {app} was made by an earlier version of deploykit, which had its sockets "
            "elsewhere",
            todo="deploy the source it was made from",
        )
    supervisord.remove(*supervisord.of(app, slot))
    launched.end(app, slot)
    for left in sockets_of(app, slot):
        _discard(left)
    layout.logs().mkdir(mode=0o755, exist_ok=True)
    logfile = layout.log(layout.program(app, slot))
    begin = size(logfile)
    supervisord.add(layout.program(app, slot), *beside)
    from deploykit.agent import visits  # while the processes start

    began = time.monotonic()
    deadline = began + health.start
    pause = 0.02
    said = "it did not answer"
    while time.monotonic() < deadline:
        forget()
        state = supervisord.state(layout.program(app, slot))
        if state not in ("STARTING", "RUNNING"):
            raise Failed(
                f"release {deployment.release} of {app} does not start (supervisor says {state})",
                words(logfile, begin),
                "correct the app and deploy again; the live release is untouched",
            )
        if place.exists():
            try:
                answer = visits.ask(str(place), health.path, health.host, health.scheme, timeout=10)
                said = f"GET {health.path} with Host {health.host} answered {answer.status}"
                if not sockets.of_release(answer.peer, deployment.release):
                    said = "something else answers on its socket"
                elif good(deployment, answer.status):
                    return time.monotonic() - began
                elif answer.status != 503:  # 503: "not ready yet" is worth waiting for
                    raise Unhealthy(
                        answer.status,
                        f"release {deployment.release} of {app} fails its health check: {said}",
                        _hint(answer.status, health.host) + (words(logfile, begin) or text_of(answer.body)),
                        "correct the app, its environment or `health`, and deploy again; the live release is untouched",
                    )
            except (OSError, visits.HTTPException) as error:
                said = f"GET {health.path} had no answer ({error})"
        time.sleep(pause)
        pause = min(pause * 1.1, 0.2)
    raise Failed(
        f"release {deployment.release} of {app} was not healthy within {health.start:g} s: {said}",
        words(logfile, begin),
        "correct the app (or `health`), or give it more `web.start_timeout`, and deploy again; the live release is "
        "untouched",
    )


def good(deployment: Deployment, status: int) -> bool:
    """Whether a status is a healthy answer."""
    if deployment.health.strict:
        return 200 <= status < 400
    return status < 500 and status != 400


def _hint(status: int, host: str) -> str:
    if status == 400:
        return f"400 usually means that {host} is not in the settings' ALLOWED_HOSTS\n"
    return ""


def size(logfile: Path) -> int:
    """How long a log is now, in bytes: what comes after that is new."""
    return logfile.stat().st_size if logfile.exists() else 0


def words(logfile: Path, begin: int) -> str:
    """What a program has said since its log was `begin` bytes long: the first traceback, or the last lines."""
    try:
        with logfile.open("rb") as file:
            if file.seek(0, os.SEEK_END) < begin:
                begin = 0  # rotated since
            file.seek(begin)
            text = file.read()[-65536:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    # Several workers fail alike, one after the other: the first one's traceback says it all. gunicorn's own, about
    # having no workers, says nothing.
    for each in _TRACEBACK.findall(text):
        if "\ngunicorn.errors.HaltServer" not in each:
            return tail(each)
        text = text.replace(each, "")
    return tail(text)


def text_of(body: str) -> str:
    """The end of a page, for a message."""
    return tail(body, 10)


def sockets_of(app: str, slot: str) -> list[Path]:
    """The sockets of a slot's web servers: the main one's, and those with a name."""
    folder = layout.run(app) if moved(app, slot) else layout.sockets(app)
    return [folder / layout.socket(app, slot, name).name for name in ("", *_names(app, slot))]


def _names(app: str, slot: str) -> list[str]:
    """The names of a slot's sockets beside the main one, as they were when it was claimed."""
    if moved(app, slot):
        return [each.name.split(".")[1] for each in layout.sockets(app).glob("live.*.sock")]
    return [str(name) for name in record(app).get("sockets", {}).get(slot, ())]


def moved(app: str, slot: str = "") -> bool:
    """Whether what runs in a slot, or in the live one, was started by a version that had the sockets elsewhere."""
    state = paths.known_json(paths.APPS / f"{app}.json", {"live": "", "slots": {}})  # each plan asks
    slot = slot or state["live"]
    return slot in state["slots"] and slot not in state.get("sockets", {})


def lead(app: str, release: str, slot: str) -> None:
    """Lets the links in a release's code lead to the configuration files of `slot`: it comes up there, or goes on."""
    folder = layout.release(app, release)
    if folder.is_dir():
        point(folder / "files", str(layout.config_files(app, slot)))


def switch(app: str, release: str, slot: str) -> None:
    """Makes `slot`, in which `release` runs, the live one: now and after a reboot.

    First what a reboot reads, last what nginx reads: at no point does a crash leave the two different and unseen.
    """
    before = record(app)["slots"].get(other(slot), "")
    told = _told(app, release, slot, f"releases/{before}" if before and before != release else None)
    for step in (*told, *_reached(app, slot)):
        step()
    state = record(app)
    state["live"] = slot
    paths.write_json(paths.APPS / f"{app}.json", state)


def switch_back(app: str, release: str, slot: str, previous: str) -> None:
    """As `switch`, to the slot that was live before, and each step whatever becomes of the others. Raises Failed.

    First what nginx reads: whatever is broken or full, visitors have what they had. `previous`: where the link to the
    release before led.
    """
    failures = []
    state = {**record(app), "live": slot}
    steps: list[Callable[[], None]] = [*_reached(app, slot), *_told(app, release, slot, previous)]
    for step in (*steps, lambda: paths.write_json(paths.APPS / f"{app}.json", state)):
        outcome = attempt(step, f"slot {slot}", app)
        if isinstance(outcome, Failed):
            failures.append(outcome.what)
    if failures:
        raise Failed(f"slot {slot} of {app} is not wholly live again", "\n".join(dict.fromkeys(failures)), app=app)


def _told(app: str, release: str, slot: str, previous: str | None) -> Iterator[Callable[[], None]]:
    """What says which slot and release are live: for a reboot, for static files, for commands by hand."""
    names = _names(app, slot)
    folder = f"{layout.run(app)}/" if moved(app, slot) else ""  # else the folder of the links
    yield lambda: paths.write(layout.boot(app), boot_text(app, slot, names, folder), mode=0o644)
    yield lambda: point(layout.live_release(app), f"releases/{release}")
    if previous:
        yield lambda: point(layout.previous_release(app), previous)
    elif previous is not None:
        yield lambda: layout.previous_release(app).unlink(missing_ok=True)
    yield lambda: point(layout.environment(app), layout.environment(app, slot).name)
    if (layout.release(app, release) / "files").is_symlink():
        yield lambda: lead(app, release, slot)


def _reached(app: str, slot: str) -> Iterator[Callable[[], None]]:
    """The links that nginx connects by."""
    names = _names(app, slot)
    folder = f"{layout.run(app)}/" if moved(app, slot) else ""
    for name in (*names, ""):
        yield functools.partial(point, layout.socket(app, "live", name), folder + layout.socket(app, slot, name).name)
    for left in layout.sockets(app).glob("live.*.sock"):
        if left.name.split(".")[1] not in names:
            yield functools.partial(_discard, left)


def claim(deployment: Deployment, slot: str) -> None:
    """Remembers which release is in a slot, before it is started there."""
    state = record(deployment.app)
    state["slots"][slot] = deployment.release
    state.setdefault("sockets", {})[slot] = list(deployment.sockets)
    paths.write_json(paths.APPS / f"{deployment.app}.json", state)


def watch(deployment: Deployment, slot: str) -> None:
    """Looks at the live release for a moment after the switch. Raises Failed when it stops being healthy."""
    from deploykit.agent import visits

    health = deployment.health
    deadline = time.monotonic() + health.watch
    while time.monotonic() < deadline:
        time.sleep(0.1)
        forget()
        state = supervisord.state(layout.program(deployment.app, slot))
        if state not in ("STARTING", "RUNNING"):
            raise Failed(f"release {deployment.release} of {deployment.app} died after the switch", state)
    through = "through nginx" if health.proxy else "on its socket"
    front = deployment.front()
    try:
        if health.proxy:
            answer = visits.ask_nginx(health.path, health.host, health.scheme, health.drain, front)
        else:
            place = str(layout.socket(deployment.app, "live"))
            answer = visits.ask(place, health.path, health.host, health.scheme, timeout=health.drain)
    except (OSError, visits.HTTPException) as error:
        raise Failed(
            f"release {deployment.release} of {deployment.app} does not answer {through}", str(error)
        ) from None
    if not good(deployment, answer.status) and not front.refuses(answer.status):
        raise Failed(
            f"release {deployment.release} of {deployment.app} answers {answer.status} {through}, after the switch",
            text_of(answer.body),
        )


def drain(app: str, slot: str, limit: float) -> None:
    """Waits until nobody is connected to a slot that is no longer live, at most `limit` seconds."""
    deadline = time.monotonic() + limit
    # A client that read the link just before the switch is connected long since: the new release was watched meanwhile.
    places = [str(each) for each in sockets_of(app, slot)]
    while any(map(sockets.connections, places)) and time.monotonic() < deadline:
        time.sleep(0.05)


def clear(app: str, slot: str) -> None:
    """Stops what runs in a slot and takes its files away. No-op when nothing is there."""
    supervisord.remove(layout.program(app, slot), *supervisord.of(app, slot))
    launched.end(app, slot)
    conf = layout.supervisor(app, slot)
    if conf.exists():
        conf.unlink()
        paths.sync(conf.parent)
        supervisord.reread()  # `supervisorctl avail` would go on offering what has no file any more
    for path in (*layout.etc().glob(f"{app}.{slot}.*"), *sockets_of(app, slot)):
        _discard(path)
    state = record(app)
    if slot in state["slots"]:
        del state["slots"][slot]
        state.get("sockets", {}).pop(slot, None)
        paths.write_json(paths.APPS / f"{app}.json", state)
    forget()


def retire(app: str) -> None:
    """Takes an app's processes and code off the host. Its media, data, database and secrets stay."""
    # Before its files go: a command by the clock that runs now would hold its user and its folders.
    run(("systemctl", "stop", f"deploykit-{app}.*.timer", f"deploykit-{app}.*.service"), check=False)
    for slot in SLOTS:
        clear(app, slot)
    for path in (
        layout.environment(app),
        layout.boot(app),
        *layout.sockets(app).glob("*"),  # links to live sockets, locks
        layout.live_release(app),
        layout.previous_release(app),
        layout.run(app),
    ):
        _discard(path)
    for name in ("releases", "venvs"):
        folder = layout.home(app) / name
        for each in folder.glob("*"):
            _discard(each)
    (paths.APPS / f"{app}.json").unlink(missing_ok=True)
    forget()


def _discard(path: Path) -> None:
    """Takes away whatever is there: a file, a link, which is not followed, or a folder with all that is in it.

    A process that still writes into that folder cannot hold it up: then the folder stays.
    """
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):  # POSIX says EPERM of a folder
        from deploykit.agent import trees

        trees.remove(path)


def installed(app: str) -> bool:
    """Whether any of an app's processes or releases are on the host."""
    return live(app) is not None or (paths.APPS / f"{app}.json").exists()
