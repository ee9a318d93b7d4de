"""Whatever deploykit manages, altered by hand on the host: the plan names it, a deploy mends it.

What it manages is read from the host itself, so that nothing new can be forgotten here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import WARM
from .site import LINKS, MEMORIES, READER, Host, Project, eventually, named, standing

APPS = ("memories", "links", "reader")
#: Folders whose loss is the loss of data, or of deploykit's own memory: a deploy cannot bring that back.
DATA = {
    *("/etc/postgresql-common", "/var/lib/deploykit", "/var/lib/deploykit/secrets", "/var/backups/deploykit"),
    *("/srv/memories", "/srv/links", "/srv/reader", "/srv/reader/data"),
}
#: Made anew, too, but slowly; the reader's stands for these.
SLOW = {"/srv/memories/venvs", "/srv/links/venvs", "/srv/memories/home", "/srv/links/home"}


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("drift", WARM) as host:
        project = Project(tmp_path_factory.mktemp("drift"), host).three()
        project.deploy()
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


@pytest.fixture(autouse=True)
def whole(site: Project) -> None:
    """Each test begins on a host that is as wanted, whatever became of the one before."""
    if site.changes():
        site.deploy()


def managed(host: Host) -> list[tuple[str, dict[str, Any]]]:
    """(class, its values) of each resource in the host's manifest."""
    entries = json.loads(host.said("cat", "/var/lib/deploykit/manifest.json"))
    return [(name.rpartition(":")[2], fields) for entry in entries.values() for name, fields in entry.items()]


def slot_files(host: Host, app: str) -> list[str]:
    """The files of the live slot. They belong to the app's deployment, not to the manifest."""
    slot = host.said("readlink", f"/run/deploykit/{app}/live.sock").removesuffix(".sock")
    return [
        f"/etc/deploykit/{app}.{slot}.env",
        f"/etc/deploykit/{app}.{slot}.gunicorn.py",
        f"/etc/supervisor/conf.d/{app}-{slot}.conf",
    ]


def sql(statement: str) -> str:
    return f"runuser -u postgres -- psql -Xq -v ON_ERROR_STOP=1 -c '{statement}'"


def content(kind: str, of: dict[str, Any]) -> tuple[str, str, str]:
    """First round: what is in it, or whether it runs. (key, script, aspect that the plan must name)"""
    path, name, unit = of.get("path", ""), of.get("name", ""), of.get("unit", "")
    match kind:
        case "File":
            return f"file {path}", f"echo '# altered by hand' >> {path}", "content"
        case "Directory" | "DataDirectory":
            return f"directory {path}", f"chmod 0777 {path}", "mode"
        case "Link":
            return f"link {path}", f"ln -sfn /dev/null {path}", "target"
        case "Absent":
            return f"absent {path}", f"touch {path}", "exists"
        case "NoPasswords":
            return f"passwords {path}", f"touch {path}", "exists"
        case "Service" | "SharedService" if of["running"]:
            return f"service {unit}", f"systemctl disable -q --now {unit}", "running"
        case "Service" | "SharedService":
            return f"service {unit}", f"systemctl enable -q --now {unit}", "enabled"
        case "User":
            return f"user {name}", f"usermod --comment stranger {name}", "comment"
        case "Role":
            return f"postgres role {name}", sql(f'ALTER ROLE "{name}" CREATEDB SUPERUSER'), "attributes"
        case "Database":
            grant = sql(f'GRANT CONNECT ON DATABASE "{name}" TO PUBLIC')
            return f"postgres database {name}", grant, "open to every role"
        case "Uv":
            return "uv", "chmod 0644 /opt/deploykit/uv/bin/uv", "version"
        case "Connections":
            return f"connections in {path}", f"sed -i 's/ 8192;/ 99;/' {path}", "worker_connections"
        case "Package" | "Started" | "Names" | "Moved" | "Group" | "Included":
            return "", "", ""
    raise AssertionError(f"teach this test about {kind}")


def owner(kind: str, of: dict[str, Any]) -> tuple[str, str, str]:
    """Second round: whose it is and who may read it."""
    path, name, unit = of.get("path", ""), of.get("name", ""), of.get("unit", "")
    match kind:
        case "File":
            return f"file {path}", f"chown nobody {path}; chgrp nogroup {path}; chmod 0606 {path}", "owner group mode"
        case "Directory" | "DataDirectory":
            return f"directory {path}", f"chown nobody:nogroup {path}", "owner group"
        # PostgreSQL's cluster is started by the other of its two services.
        case "Service" | "SharedService" if of["running"] and not unit.startswith("postgresql@"):
            return f"service {unit}", f"systemctl disable -q {unit}", "enabled"
        case "User":
            # not by usermod, which refuses a user whose processes run
            edit = f"sed -i -E 's|^({name}:.*):[^:]*:[^:]*$|\\1:/nonexistent:/bin/false|' /etc/passwd"
            return f"user {name}", f"{edit}; gpasswd -a {name} adm", "home shell groups"
        case "Role":
            return f"postgres role {name}", sql(f'ALTER ROLE "{name}" NOLOGIN'), "attributes"
        case "Database":
            return f"postgres database {name}", sql(f'ALTER DATABASE "{name}" OWNER TO postgres'), "owner"
    return "", "", ""


def gone(kind: str, of: dict[str, Any]) -> tuple[str, str, str]:
    """Third round: it is not there."""
    path, name, unit = of.get("path", ""), of.get("name", ""), of.get("unit", "")
    match kind:
        case "File" | "Link":
            return f"{kind.lower()} {path}", f"rm -f {path}", ""
        case "Directory" | "DataDirectory" if path not in DATA | SLOW:
            return f"directory {path}", f"rm -rf {path}", ""
        case "Absent":
            return f"absent {path}", f"ln -s /etc/passwd {path}", "exists"
        case "Service" | "SharedService" if unit in ("nginx.service", "supervisor.service"):
            return f"service {unit}", f"systemctl mask -q --now {unit}", "running enabled"
        case "Package" if name in ("tzdata", "redis-server", "python3-pip-whl"):
            return f"package {name}", f"DEBIAN_FRONTEND=noninteractive dpkg --remove --force-depends {name}", ""
        case "Uv":
            return "uv", "rm -rf /opt/deploykit/uv", ""
    return "", "", ""


SLOT = {
    content: ("echo '# altered by hand' >> {0}", "content"),
    owner: ("chown nobody {0}; chgrp nogroup {0}; chmod 0604 {0}", "owner group mode"),
    gone: ("rm {0}", "owner mode"),
}


@pytest.mark.parametrize("alter", [content, owner, gone], ids=lambda alter: alter.__name__)
def test_everything_altered_by_hand(site: Project, host: Host, alter: Any) -> None:
    things = [alter(kind, of) for kind, of in managed(host)]
    # What needs a running PostgreSQL is altered before it is stopped, what folders hold before the folders.
    order = (
        "postgres ",
        "user ",
        "uv",
        "package ",
        "connections ",
        "file ",
        "link ",
        "absent ",
        "passwords ",
        "directory ",
        "service ",
    )
    things = sorted(
        (each for each in things if each[0]),
        key=lambda each: [each[0].startswith(begin) for begin in order].index(True),
    )
    assert len(things) > 20
    script, aspects = SLOT[alter]
    slots = {path: app for app in APPS for path in slot_files(host, app)}
    host.sh("\n".join([*(script.format(path) for path in slots), *(each[1] for each in things)]))

    changes = site.changes()
    found = {change["key"]: {each["name"] for each in change["differences"]} for change in changes}
    assert {key for key, _, _ in things if key not in found} == set()
    # A database of a server that does not run cannot be looked at: it is in the plan as "later".
    later = {change["key"] for change in changes if change["verb"] == "later"}
    assert {key for key, _, wanted in things if key not in later and not set(aspects_of(wanted)) <= found[key]} == set()
    for path, app in slots.items():
        file = path.rpartition("/")[2]
        assert {f"{file} {aspect}" for aspect in aspects.split()} <= found[f"app {app}"], path

    plain = site.fab("plan")
    assert plain.status == 2 and all(key in plain.stdout for key, _, _ in things)
    site.deploy()
    site.settled()
    host.up()


def aspects_of(text: str) -> list[str]:
    return [text] if text == "open to every role" else text.split()


def mended(site: Project, *keys: str) -> None:
    """The plan names these and nothing else, a deploy mends them, all sites answer."""
    found = named(site.changes())
    assert set(keys) <= found and {key for key in found if ": " not in key} == {key.partition(": ")[0] for key in keys}
    site.deploy()
    site.settled()
    site.host.up()


def test_what_postgres_was_started_with(site: Project, host: Host) -> None:
    before = host.psql("postgres", "SHOW max_connections")
    conf = f"/etc/postgresql/{host.major}/main/conf.d/deploykit.conf"
    host.sh(f"sed -i \"s/^max_connections.*/max_connections = '37'/\" {conf}; systemctl restart {host.cluster}")
    assert host.psql("postgres", "SHOW max_connections") == "37" != before
    mended(site, f"file {conf}", "postgres settings")
    assert host.psql("postgres", "SHOW max_connections") == before


def test_configuration_that_no_program_can_read(site: Project, host: Host) -> None:
    files = {
        "/etc/nginx/sites-available/memories.conf": "nginx.service",
        "/etc/deploykit/redis-links.conf": "redis-server@links.service",
        f"/etc/postgresql/{host.major}/main/conf.d/deploykit.conf": host.cluster,
    }
    for path, unit in files.items():
        host.sh(f"echo 'nonsense {{' >> {path}; systemctl stop {unit}; ! systemctl start {unit}")
    found = named(site.changes())
    assert {f"file {path}" for path in files} | {f"service {unit}" for unit in files.values()} <= found
    site.deploy()
    site.settled()
    host.up()


@pytest.mark.parametrize("unit", ["nginx.service", "redis-server@links.service", "supervisor.service"])
def test_a_service_stopped(site: Project, host: Host, unit: str) -> None:
    host.sh(f"systemctl stop {unit}")
    assert f"service {unit}" in named(site.changes())
    site.deploy()
    site.settled()
    host.up()
    assert host.said("systemctl", "is-active", unit) == "active"


def test_a_service_that_would_not_come_back_at_boot(site: Project, host: Host) -> None:
    host.sh("systemctl disable -q supervisor.service")
    before = host.pids()
    mended(site, "service supervisor.service")
    assert host.said("systemctl", "is-enabled", "supervisor.service") == "enabled"
    assert host.pids() == before


def test_what_leads_to_the_live_slot(site: Project, host: Host) -> None:
    before = host.programs()
    host.sh("rm /run/deploykit/memories/live.sock; ln -sfn /nowhere /srv/links/live")
    host.sh("ln -sfn nowhere /etc/deploykit/reader.env")
    host.sh("echo > /etc/tmpfiles.d/deploykit-links-live.conf; rm /etc/tmpfiles.d/deploykit-reader-live.conf")
    assert host.curl(MEMORIES).status == 502
    mended(site, "app memories", "app links", "app reader", "app links: live", "app reader: environment")
    assert host.programs() == before  # nothing had to be restarted for that
    for app in APPS:
        slot = host.said("readlink", f"/run/deploykit/{app}/live.sock")
        assert slot in host.said("cat", f"/etc/tmpfiles.d/deploykit-{app}-live.conf")
        assert host.said("readlink", f"/etc/deploykit/{app}.env") == f"{app}.{slot.removesuffix('.sock')}.env"
        assert host.sh(f"cd /srv/{app}/live/code && ls") != ""


def test_the_sockets_folder_deleted(site: Project, host: Host) -> None:
    host.sh("rm -rf /run/links /run/deploykit/links")
    assert host.curl(LINKS).status == 502
    mended(site, "directory /run/links", "directory /run/deploykit/links", "app links")


def test_a_program_stopped(site: Project, host: Host) -> None:
    (program,) = (name for name in host.programs() if name.startswith("reader-"))
    host.sh(f"supervisorctl stop {program}")
    assert host.curl(READER).status == 502
    mended(site, "app reader", "app reader: process")


def test_a_killed_gunicorn_is_started_by_supervisor(site: Project, host: Host) -> None:
    (program,) = (name for name in host.programs() if name.startswith("memories-"))
    before = host.programs()[program]
    host.sh(f"kill -9 {before}")
    assert eventually(lambda: host.programs().get(program, before) != before, 15)
    host.up(MEMORIES, seconds=15)
    site.settled()


def test_code_altered_on_the_host(site: Project, host: Host) -> None:
    path = "/srv/links/live/code/board/views.py"
    original = host.said("sha256sum", path)
    before = host.pids()
    host.sh(f"echo 'assert False, \"altered by hand\"' >> {path}")
    mended(site, "app links", "app links: code")
    assert host.said("sha256sum", path) == original
    after = host.pids()
    assert {name for name in before if after.get(name) != before[name]} == {
        name for name in before if name.startswith("links-")
    }


def test_a_static_file_altered_on_the_host(site: Project, host: Host) -> None:
    path = "/srv/links/live/static/board/css/board.css"
    original = host.said("sha256sum", path)
    host.sh(f"echo '/* altered by hand */' >> {path}")
    mended(site, "app links", "app links: code")
    assert host.said("sha256sum", path) == original


def test_a_virtualenv_deleted(site: Project, host: Host) -> None:
    host.sh("rm -rf /srv/reader/venvs/*")
    mended(site, "app reader", "app reader: code")
    host.sh("rm -rf /var/lib/deploykit/venvs/*")  # what they share their packages by
    mended(site, *(f"app {name}: code" for name in ("links", "memories")))
    (program,) = (name for name in host.programs() if name.startswith("reader-"))
    assert re.fullmatch(r"reader-[ab]", program)
