"""A secret is seen nowhere: no argv, no log, no plan, no file that a stranger can read."""

from __future__ import annotations

import subprocess

import pytest

from . import tiny
from .conftest import Machine

#: Root's keys are the sandboxes' keys; these users of theirs have them, too.
from .test_bad_input import APP, Typed, box, complaint, known  # noqa: F401 - fixtures

#: Reads every command line on the host, and every environment of root's, until it is told to stop.
WATCHER = """
import glob, os, sys, time
words = [word.encode() for word in sys.stdin.readline().split()]
found, count = set(), 0
while not os.path.exists("/tmp/stop"):
    count += 1
    for place in glob.glob("/proc/[0-9]*"):
        try:
            data = open(place + "/cmdline", "rb").read()
            if os.stat(place).st_uid == 0:
                data += open(place + "/environ", "rb").read()
        except OSError:
            continue
        if any(word in data for word in words):
            found.add(data[:300])
print(count, sorted(found))
"""
#: Every file of the host that holds one of the words on standard input.
SEARCH = """
import os, stat, sys
words = [word.encode() for word in sys.stdin.readline().split()]
for top, folders, files in os.walk("/"):
    if top == "/":
        folders[:] = [each for each in folders if each not in ("proc", "sys", "dev")]
    for name in files:
        path = os.path.join(top, name)
        try:
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and any(word in open(path, "rb").read() for word in words):
                print(oct(found.st_mode & 0o777), path)
        except OSError:
            pass
"""


def test_secrets_are_seen_nowhere(known: Typed, box: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    host = known.host
    held, own = "hush-0a1b2c3d4e", "hush-5f6a7b8c9d"
    (known.ssh.parent / "kept").write_text(f"{own}\n")
    known.write(
        f'[hosts.web1]\naddress = "{box.address}"\nuser = "deploy"\n\n{APP}\n[apps.tiny.env]\n'
        f'TOKEN = {{secret = "TOKEN"}}\nOWN = {{command = "cat {known.ssh.parent}/kept"}}\n'
    )
    tiny.write(known.folder / "tiny")
    urls = known.folder / "tiny/tiny/urls.py"
    urls.write_text(
        "import hashlib, os\nfrom django.http import HttpResponse\nfrom django.urls import path\n"
        "def home(request):\n    both = os.environ['TOKEN'] + os.environ['OWN']\n"
        "    return HttpResponse(hashlib.sha256(both.encode()).hexdigest())\nurlpatterns = [path('', home)]\n"
    )
    missing = known.fab("deploy")
    complaint(missing, "the secret TOKEN of app tiny is not on the host", "fab secrets set --app tiny --name TOKEN")

    watching = subprocess.Popen(
        ["ssh", "-F", "/dev/null", "-o", f"UserKnownHostsFile={known.ssh}/known_hosts", "-i", str(box.identity),
         f"root@{box.address}", "rm -f /tmp/stop; exec python3 -c " + f"'{WATCHER}'"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdin is not None
    watching.stdin.write(f"{held} {own}\n")
    watching.stdin.flush()
    said = []
    said.append(known.fab("secrets", "set", "--app", "tiny", "--name", "TOKEN", stdin=f"{held}\n"))
    said.append(known.fab("plan"))
    said.append(known.fab("plan", "--json", "--verbose"))
    said.append(known.fab("deploy", "--verbose"))
    said.append(known.fab("secrets", "list", "--app", "tiny"))
    (known.ssh.parent / "kept").write_text(f"{own}-changed\n")
    said.append(known.fab("plan", "--verbose"))
    said.append(known.fab("plan", "--json"))
    assert [each.status for each in said] == [0, 2, 2, 0, 0, 2, 2], "\n".join(each.text for each in said)
    assert "TOKEN" in said[4].stdout and "OWN" in said[5].stdout, said[5].text
    host.run("touch", "/tmp/stop")
    seen, _ = watching.communicate(timeout=20)
    count, _, found = seen.partition(" ")
    assert int(count) > 20 and found.strip() == "[]", seen

    for ran in said:
        assert held not in ran.text and own not in ran.text
    # The app has them, whole.
    import hashlib

    assert host.curl("tiny.example").text == hashlib.sha256((held + own).encode()).hexdigest()
    # On the host they are where they must be, and only for whom they must be.
    done = box.run("python3", "-c", SEARCH, stdin=f"{held} {own}\n".encode())
    places = set(done.stdout.decode().splitlines())
    assert places == {
        "0o640 /etc/deploykit/tiny.a.env",
        "0o600 /var/lib/deploykit/apps/tiny.json",  # what a rollback brings back
        "0o600 /var/lib/deploykit/secrets/tiny.json",
    }
    assert host.said("stat", "-c", "%U %G", "/etc/deploykit/tiny.a.env") == "root tiny"
    for words in (("journalctl", "--no-pager", "-o", "cat"), ("cat", "/var/lib/deploykit/journal.jsonl")):
        text = host.said(*words)
        assert text and held not in text and own not in text
    # Nor does this side keep one.
    for place in known.ssh.parent.rglob("*"):
        if place.is_file() and place.name != "kept":
            data = place.read_bytes()
            assert held.encode() not in data and own.encode() not in data, place
    assert known.fab("secrets", "unset", "--app", "tiny", "--name", "TOKEN").status == 0
    assert host.said("cat", "/var/lib/deploykit/secrets/tiny.json").count(held) == 0
