"""The demo: a throw-away host, three Django apps deployed with one command, and the proof. Run it with `make demo`."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import time
from pathlib import Path

from deploykit import sandbox
from deploykit.screen import Screen

ROOT = Path(__file__).resolve().parent.parent
FAB = str(Path(sys.executable).with_name("fab"))
HOST = "sandbox"
#: What fills each site with something to look at.
CONTENT = {"memories": "seed", "links": "seed", "reader": "fetch"}


def fab(*words: str) -> float:
    """Runs fab as a person would, and returns the seconds it took."""
    print(f"\n$ fab {' '.join(words)}", flush=True)
    began = time.monotonic()
    status = subprocess.run([FAB, *words], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(f"fab {' '.join(words)} ended with {status}")
    return time.monotonic() - began


def ask(address: str, domain: str) -> tuple[str, str, str]:
    """(status, title of the page, milliseconds) of a site, as a browser would ask for it."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    try:
        connection.request("GET", "/", headers={"Host": domain})
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return "no answer", str(error), ""
    finally:
        connection.close()
    title = re.search(r"<title>\s*(.*?)\s*</title>", body, re.DOTALL)
    return str(response.status), title[1] if title else "", f"{(time.monotonic() - began) * 1000:.0f} ms"


def fill() -> None:
    """Puts content into the sites with their own management commands, as each app's own user."""
    for app, command in CONTENT.items():
        release = sandbox.run(HOST, "readlink", "-f", f"/srv/{app}/live/code").stdout.decode().strip()
        folder = f"{release}/src" if app == "reader" else release
        python = sandbox.run(HOST, "sh", "-c", f"echo /srv/{app}/venvs/*/bin/python").stdout.decode().split()[-1]
        env = f"/usr/local/lib/deploykit/with-env /etc/deploykit/{app}.env"
        words = f"cd {folder} && {env} {python} manage.py {command}"
        sandbox.run(HOST, "runuser", "-u", app, "--", "sh", "-c", words)


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
    print(
        f"""
The first deploy took {first:.1f} s, the second one, with nothing to do, {again:.2f} s.

Look at them:     curl -H 'Host: memories.example' http://{host.address}/
                  or add to /etc/hosts:  {host.address} memories.example links.example reader.example
Change something: edit deploykit.toml or a file in examples/, then
                  {VENV}fab plan --host {HOST}     and     {VENV}fab deploy --host {HOST}
See how it is:    {VENV}fab status --host {HOST}
Log in:           ssh -i {host.identity} root@{host.address}
Throw it away:    make demo-down
"""
    )
    if [row[1] for row in rows] != ["200", "200", "200", "refused"]:
        sys.exit("the demo did not come out as it should: see the table")


VENV = ".venv/bin/"

if __name__ == "__main__":
    main()
