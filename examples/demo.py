"""The demo: a throw-away host, four Django apps deployed with one command, and the proof. Run it with `make demo`."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deploykit import sandbox
from deploykit.screen import Screen

ROOT = Path(__file__).resolve().parent.parent
FAB = str(Path(sys.executable).with_name("fab"))
HOST = "sandbox"
#: What fills each site with something to look at.
CONTENT = {"memories": "seed", "links": "seed", "reader": "fetch", "postcards": "seed"}
#: Seconds in which the workers should have done what that gives them to do.
PATIENCE = 30


def fab(*words: str) -> float:
    """Runs fab as a person would, and returns the seconds it took."""
    print(f"\n$ fab {' '.join(words)}", flush=True)
    began = time.monotonic()
    status = subprocess.run([FAB, *words], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(f"fab {' '.join(words)} ended with {status}")
    return time.monotonic() - began


def get(address: str, domain: str, path: str = "/") -> tuple[int, str]:
    """(status, body) of a page, as a browser would ask for it. Raises OSError or http.client.HTTPException."""
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    try:
        connection.request("GET", path, headers={"Host": domain})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def ask(address: str, domain: str) -> tuple[str, str, str]:
    """(status, title of the page, milliseconds) of a site."""
    began = time.monotonic()
    try:
        status, body = get(address, domain)
    except (OSError, http.client.HTTPException) as error:
        return "no answer", str(error), ""
    title = re.search(r"<title>\s*(.*?)\s*</title>", body, re.DOTALL)
    return str(status), title[1] if title else "", f"{(time.monotonic() - began) * 1000:.0f} ms"


def fill() -> None:
    """Puts content into the sites with their own management commands."""
    for app, command in CONTENT.items():
        fab("manage", "--host", HOST, "--app", app, "--cmd", command)


def worked(address: str) -> list[tuple[str, str, str]]:
    """(app, who, what) of what was done behind the sites; "" while it is not done."""

    def page(app: str, path: str) -> str:
        return get(address, f"{app}.example", path)[1]

    photos = json.loads(page("memories", "/api/photos/"))
    links = json.loads(page("links", "/api/links/"))["links"]
    cards = json.loads(page("postcards", "/api/cards/"))["cards"]
    remembered = re.search(r"Do you remember\?</small><strong>(.*?)</strong>", page("memories", "/"))
    related = sum(bool(link["related"]) for link in links)
    stamped = sum(bool(card["motif"]) for card in cards)
    return [
        ("memories", "Celery worker", f"{photos['count']} thumbnails made" if not photos["waiting"] else ""),
        ("memories", "Celery beat", f"brought “{remembered[1]}” back to mind" if remembered else ""),
        ("links", "Django-Q", f"found relatives of {related} links" if related > 10 else ""),
        ("reader", "Huey", "waits for the next quarter of an hour, or for “Fetch now”"),
        ("postcards", "Django-RQ", f"{stamped} cards stamped" if stamped == len(cards) else ""),
    ]


def eventually(done: Callable[[], list[tuple[str, str, str]]]) -> list[tuple[str, str, str]]:
    """What `done` gives once nothing is missing in it, or after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    found = done()
    while not all(what for _, _, what in found) and time.monotonic() < deadline:
        time.sleep(0.5)
        found = done()
    return found


def main() -> None:
    """Boot, deploy, fill, deploy again, show."""
    fab("sandbox", "up")
    first = fab("deploy", "--host", HOST)
    fill()
    again = fab("deploy", "--host", HOST)
    host = sandbox.find(HOST)
    assert host is not None
    screen = Screen()
    rows = []
    for app in CONTENT:
        status, title, took = ask(host.address, f"{app}.example")
        rows.append([f"http://{app}.example/", status, took, title])
    stranger, reason, _ = ask(host.address, "stranger.example")
    rows.append(["http://stranger.example/", "refused" if stranger == "no answer" else stranger, "", reason])
    print()
    screen.table("What the host answers", ["site", "status", "took", "page"], rows)
    work = eventually(lambda: worked(host.address))
    print()
    screen.table("What was done behind them", ["app", "by", "what"], [[a, b, c or "not yet"] for a, b, c in work])
    print(
        f"""
The first deploy took {first:.1f} s, the second one, with nothing to do, {again:.2f} s.

Look at them:     add to /etc/hosts:
                  {host.address} {" ".join(f"{app}.example" for app in CONTENT)}
                  and open http://postcards.example/ in two windows: what one sends, the other shows
Change something: edit deploykit.toml or a file in examples/, then
                  {VENV}fab plan --host {HOST}     and     {VENV}fab deploy --host {HOST}
See how it is:    {VENV}fab status --host {HOST}     and     {VENV}fab logs --host {HOST} --app memories
Log in:           ssh -i {host.identity} root@{host.address}
Throw it away:    make demo-down
"""
    )
    if [row[1] for row in rows] != ["200", "200", "200", "200", "refused"] or not all(what for _, _, what in work):
        sys.exit("the demo did not come out as it should: see the table")


VENV = ".venv/bin/"

if __name__ == "__main__":
    main()
