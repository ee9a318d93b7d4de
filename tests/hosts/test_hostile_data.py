"""What an app does to its database, its commands and its processes is its own affair: root is not led astray by it,
and no other app's deploy waits for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .machines import REPOSITORY
from .site import Host, Project, Ran, standing

BANK, EVIL = "bank.example", "evil.example"

SETTINGS = """

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/evil/data/x?mode=rwc&a="}}
# more
"""

TABLES = """
[apps.bank]
source = "bank"
domains = ["bank.example"]
database = "sqlite"

[apps.evil]
source = "evil"
domains = ["evil.example"]
database = "sqlite"
command_timeout = 4
persist = ["local.py"]

[apps.rows]
source = "rows"
domains = ["rows.example"]
database = { extensions = ["pg_trgm"] }
"""

MORE = """\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notes", "BEFORE")]
    operations = [migrations.AddField("note", "NAME", models.TextField(default=""))]
"""

INSERT = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("INSERT INTO notes_note (text) VALUES ('kept')")
c.commit()
"""


#: A hot journal, valid in form, whose trailer names a super-journal: https://www.sqlite.org/fileformat.html, 3.
HOT_JOURNAL = r"""
import os, struct
name = "DATABASE"
first = open(name, "rb").read()
page = struct.unpack(">H", first[16:18])[0]
pages, first = len(first) // page, first[:page]
magic = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
checksum = (1 + sum(first[i] for i in range(page - 200, 0, -200))) & 0xFFFFFFFF
header = (magic + struct.pack(">5I", 1, 1, pages, 512, page)).ljust(512, b"\0")
target = b"/root/precious"
tail = struct.pack(">I", 0x40000000 // page + 1) + target + struct.pack(">2I", len(target), sum(target)) + magic
open(name + "-journal", "wb").write(header + struct.pack(">I", 1) + first + struct.pack(">I", checksum) + tail)
"""

#: What an app can put into its dump: code that runs when it is restored.
TRAP = """
CREATE FUNCTION public.spring(integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        EXECUTE $q$COPY (SELECT 1) TO PROGRAM 'touch /tmp/owned'$q$;
    END IF;
    RETURN true;
END $$;
CREATE TABLE trap (x integer CHECK (public.spring(x)));
INSERT INTO trap VALUES (1);
INSERT INTO notes_note (text) VALUES ('kept');
"""

LIAR = """
class P(str):
    def __str__(self):
        print("deploykit:[]")
        return "x"


MEDIA_ROOT = P("x")
"""

#: Goes on in children of its own: the next is there before one has ended. Each ends all others of its user, which
#: whoever is to end it must not be among.
FORKS = """
import os, time
if os.fork() == 0:
    os.setsid()
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if os.fork() != 0:
            os._exit(0)
        try:
            os.kill(-1, 9)
        except ProcessLookupError:
            pass
        time.sleep(0.001)
"""

#: Deeper than Python may call itself, and than a path may be long.
DEEP = """
import os, sys
for top in sys.argv[1:]:
    os.chdir(top)
    for _ in range(2500):
        os.mkdir("d")
        os.chdir("d")
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("data", WARM) as host:
        project = Project(tmp_path_factory.mktemp("data"), host)
        for name in ("bank", "evil", "rows"):
            tiny.write(project.folder / name)
        settings = project.folder / "evil/tiny/settings.py"
        settings.write_text(settings.read_text() + SETTINGS)
        project.write(host.table + TABLES)
        project.first = project.fab("deploy")
        assert project.first.status == 0, project.first.text
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def migration(site: Project, number: int, before: str) -> str:
    """evil has a migration to be made, so its database is dumped first."""
    name = f"{number:04}_more"
    text = MORE.replace("BEFORE", before).replace("NAME", f"more{number}")
    (site.folder / f"evil/notes/migrations/{name}.py").write_text(text)
    field = "    text = models.TextField()"
    site.edit("evil/notes/models.py", field, f'{field}\n    more{number} = models.TextField(default="")')
    return name


def fails(site: Project, host: Host, mark: str) -> Ran:
    """A deploy in which evil fails, and in which bank's next release goes live all the same."""
    site.edit("bank/tiny/urls.py", "version", f"{mark} version")
    ran = site.fab("deploy")
    assert ran.status == 1, ran.text
    assert "itself failed" not in ran.text and "Traceback" not in ran.text, ran.text
    assert f"{mark} version" in host.curl(BANK).text, ran.text
    assert host.curl(EVIL).status == 200, "its live release goes on"
    site.edit("bank/tiny/urls.py", f"{mark} version", "version")
    return ran


def test_a_file_name_is_no_instruction_to_sqlite(site: Project, host: Host) -> None:
    place = "/srv/evil/data/x?mode=rwc&a="
    host.run("python3", "-c", INSERT, place, user="evil")
    migration(site, 2, "0001_initial")
    site.deploy()
    assert rows(host, "/var/backups/deploykit/evil/*-before-*.sqlite3") == "kept"
    assert host.run("test", "-e", "/srv/evil/data/x", check=False).returncode == 1
    assert host.sh("stat --format=%a:%U /var/backups/deploykit/evil/*-before-*.sqlite3") == "600:root"


def test_root_recovers_no_database_of_an_app(site: Project, host: Host) -> None:
    """A journal may name a file for SQLite to delete after the recovery (a super-journal): as root, any file."""
    host.sh("echo precious > /root/precious; chmod 600 /root/precious")
    name = "/srv/evil/data/x?mode=rwc&a="
    host.run("cp", name, f"{name}.kept", user="evil")
    host.run("python3", "-c", HOT_JOURNAL.replace("DATABASE", name), user="evil")
    migration(site, 3, "0002_more")
    site.fab("deploy")
    assert host.sh("cat /root/precious") == "precious"
    host.sh(f"rm -f '{name}-journal'; runuser -u evil -- cp '{name}.kept' '{name}'; rm '{name}.kept'")
    site.deploy()
    assert "1 notes" in host.curl(EVIL).text


def test_what_killed_dumps_left_is_removed(site: Project, host: Host) -> None:
    host.sh("touch /var/backups/deploykit/evil/20200101T000000Z-before-x.partial; mkdir /srv/evil/.dump-left")
    migration(site, 4, "0003_more")
    site.deploy()
    assert host.sh("ls /var/backups/deploykit/evil | grep -c partial || true") == "0"
    assert host.sh("ls -A /srv/evil | grep -c dump || true") == "0"


def test_root_compiles_no_file_of_anothers_for_an_app(site: Project, host: Host) -> None:
    """What is compiled of a file has its texts in it, and the app reads that."""
    host.sh("echo 'KEY = \"sesame\"' >/etc/deploykit/precious.env; chmod 640 /etc/deploykit/precious.env")
    host.run("ln", "-s", "/etc/deploykit/precious.env", "/srv/evil/persist/local.py", user="evil")
    site.edit("evil/tiny/urls.py", "version", "another version")
    site.deploy()
    site.edit("evil/tiny/urls.py", "another version", "version")
    assert host.sh("ls /srv/evil/releases/*/code/tiny/__pycache__ | grep -c urls") != "0"
    assert host.sh("grep -rl sesame /srv/evil/releases || true") == ""
    host.sh("rm /srv/evil/persist/local.py /etc/deploykit/precious.env")


def test_a_pipe_in_the_place_of_a_database_holds_nothing_up(site: Project, host: Host) -> None:
    host.run("mkfifo", "/srv/evil/data/pipe", user="evil")
    site.edit("evil/tiny/settings.py", "/data/x?mode=rwc&a=", "/data/pipe")
    ran = fails(site, host, "pipe")
    assert "regular file" in ran.text, ran.text
    site.edit("evil/tiny/settings.py", "/data/pipe", "/data/x?mode=rwc&a=")


def test_settings_that_print_an_answer_of_their_own(site: Project, host: Host) -> None:
    site.edit("evil/tiny/settings.py", "# more", LIAR)
    ran = fails(site, host, "liar")
    assert "unusable paths" in ran.text and "MEDIA_ROOT" in ran.text, ran.text
    site.edit("evil/tiny/settings.py", LIAR, "# more")


def test_a_hook_that_does_not_end_is_ended(site: Project, host: Host) -> None:
    site.edit("evil/tiny/urls.py", "version 1", "version 2")
    text = site.toml.read_text()
    hook = "trap '' TERM; sh -c 'trap \"\" TERM; sleep 7777' & setsid sleep 7778 & sleep 7777"
    site.write(f'{text}\n[apps.evil.hooks]\nafter_install = ["""{hook}"""]\n')
    ran = fails(site, host, "hook")
    assert "did not end within 4 s" in ran.text and "command_timeout" in ran.text, ran.text
    assert host.run("pgrep", "-f", "sleep 7777", check=False).stdout == "", "with all that it has started"
    site.write(text)
    site.deploy()
    assert "version 2" in host.curl(EVIL).text, "the host is not locked"


def test_an_app_leaves_whatever_it_does(site: Project, host: Host) -> None:
    host.run("sh", "-c", "printf 'SQLite format 3\\0garbage' > /srv/evil/data/zz.bin", user="evil")
    host.run("sh", "-c", "setsid sleep 7779 >/dev/null 2>&1 & touch /tmp/of-evil", user="evil")
    host.run("mkdir", "-p", "/dev/shm/of-evil/x", user="evil")
    host.run("truncate", "--size=2G", "/srv/evil/data/zz.bin", user="evil")
    host.run("python3", "-c", DEEP, "/srv/evil/data", "/run/evil", "/tmp", user="evil")
    assert site.fab("status").status == 0
    host.run("sh", "-c", 'exec python3 -c "$1" >/dev/null 2>&1', "sh", FORKS, user="evil", check=False)
    uid = host.said("id", "-u", "evil")
    ran = site.fab("remove-app", "evil", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert host.run("id", "evil", check=False).returncode == 1
    assert host.run("pgrep", "-u", uid, check=False).stdout == ""
    assert host.sh(f"find / -path /proc -prune -o -path /sys -prune -o -uid {uid} -print") == ""
    assert host.sh("ls /var/log/nginx /run | grep -c evil || true") == "0"
    copy = "/var/backups/deploykit/evil/*-deleted-zz.sqlite3"
    assert "garbage" in host.sh(f"head -c 100 {copy} | tr -d '\\0'")
    size, blocks = host.sh(f"stat --format='%s %b' {copy}").split()
    assert int(size) == 2 << 30 and int(blocks) < 1000, "without the disk that it does not take"
    assert host.sh("ls -A /srv | grep -c evil || true") == "0"
    assert host.curl(BANK).status == 200


def test_a_dump_is_restored_as_the_docs_say_and_not_by_a_superuser(site: Project, host: Host) -> None:
    host.run("psql", "-qd", "rows", "-c", TRAP, user="rows")
    dump = "/var/backups/deploykit/rows/NAME.dump"
    host.sh(f"runuser -u postgres -- pg_dump --format=custom rows >{dump}; chmod 600 {dump}")
    host.run("psql", "-qd", "rows", "-c", "DELETE FROM notes_note; DROP TABLE trap", user="rows")
    page = (REPOSITORY / "docs/troubleshooting.md").read_text()
    (commands,) = re.findall(r"```\n([^`]*pg_restore[^`]*)```", page)
    host.sh(commands.replace("blog", "rows"))
    assert host.psql("rows", "SELECT text FROM notes_note") == "kept"
    assert host.psql("rows", "SELECT x FROM trap") == "1"
    assert host.psql("rows", "SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'") == "pg_trgm"
    assert host.run("test", "-e", "/tmp/owned", check=False).returncode == 1
    assert host.curl("rows.example").status == 200


def test_an_app_takes_no_more_connections_than_its_own(host: Host) -> None:
    limit = int(host.psql("postgres", "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'rows'"))
    assert 10 <= limit < int(host.psql("postgres", "SHOW max_connections")) - 10
    many = f"for i in $(seq {limit + 20}); do psql -Xqd rows -c 'SELECT pg_sleep(300)' & done;"
    host.run("sh", "-c", f"({many} wait) >/dev/null 2>&1 </dev/null &", user="rows")
    taken = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'rows'"
    host.sh(f'until [ $(runuser -u postgres -- psql -XAtqc "{taken}") -ge {limit} ]; do sleep 0.1; done')
    refused = host.run("psql", "-Xqd", "rows", "-c", "SELECT 1", user="rows", check=False)
    assert "too many connections for role" in refused.stderr
    assert int(host.psql("postgres", taken)) == limit
    host.psql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rows'")


def test_a_restart_of_postgresql_is_planned(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    site.write(text.replace('["pg_trgm"]', '["pg_trgm", "pg_stat_statements"]'))
    ran = site.fab("plan")
    assert ran.status == 2 and "restart PostgreSQL" in ran.stdout, ran.text
    before = host.said("systemctl", "show", "--property=MainPID", "--value", host.cluster)
    site.deploy()
    assert host.said("systemctl", "show", "--property=MainPID", "--value", host.cluster) != before
    site.settled()
    site.write(text.replace('["pg_trgm"]', '["pg_trgm", "pg_stat_statements", "citext"]'))
    ran = site.fab("plan")
    assert ran.status == 2 and "restart PostgreSQL" not in ran.stdout, ran.text
    site.write(text)


def test_a_lock_on_a_table_keeps_no_app_on_the_host(site: Project, host: Host) -> None:
    """What the server does for a client that was killed goes on."""
    lock = "psql -Xqd rows -c 'BEGIN; LOCK TABLE notes_note; SELECT pg_sleep(300)' >/dev/null 2>&1 </dev/null &"
    host.run("sh", "-c", lock, user="rows")
    held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation IS NOT NULL"
    host.sh(f'until [ $(runuser -u postgres -- psql -XAtqd rows -c "{held}") != 0 ]; do sleep 0.1; done')
    ran = site.fab("remove-app", "rows", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert host.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'rows'") == "0"
    assert host.sh("ls /var/backups/deploykit/rows/*-deleted.dump")


def rows(host: Host, pattern: str) -> str:
    script = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT text FROM notes_note').fetchone())"
    )
    return host.sh(f'python3 -c "{script}" {pattern}')
