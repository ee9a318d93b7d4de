"""Attempts that need no more than a command, run as the hostile app's user: each must fail.

A command that would fail for whoever runs it proves nothing, so each names a user with whom it must succeed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..site import Host

#: Runs each command with a time limit; what became of it.
_RUN = r"""
import json, subprocess, sys
found = {}
for name, command in json.load(sys.stdin).items():
    try:
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=20, stdin=subprocess.DEVNULL, cwd="/")
        said = (done.stdout + done.stderr).decode(errors="replace")[-300:]
        found[name] = [done.returncode, said]
    except subprocess.TimeoutExpired:
        found[name] = [124, "not at its end after 20 s"]
print(json.dumps(found))
"""

_PTRACE = (
    "python3 -c 'import ctypes, os; c = ctypes.CDLL(None, use_errno=True); failed = c.ptrace(16, PID, 0, 0);"
    " failed or (os.waitpid(PID, 0x40000000), c.ptrace(17, PID, 0, 0)); raise SystemExit(failed != 0)'"
)
_CONNECT = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{}\")'"


def _touch(path: str) -> str:
    return f"touch {path} && rm -f {path}"


def _psql(words: str, statement: str = "SELECT 1") -> str:
    return f'psql -Xwqt -v ON_ERROR_STOP=1 {words} -c "{statement}"'


@dataclass(frozen=True)
class Attempt:
    """`able`: a user with whom `command` succeeds, which shows that nothing but a right is missing."""

    name: str
    command: str
    able: str = "root"


def _several(able: str, what: str, **commands: str) -> list[Attempt]:
    return [Attempt(f"{what} {name.replace('_', ' ')}", command, able) for name, command in commands.items()]


#: SLOT, VENV, PID (of bank's web server) and PORT (of bank's Redis) are put in.
TABLE = [
    *_several(
        "bank",
        "read bank's",
        code="cat /srv/bank/live/code/manage.py",
        release="ls /srv/bank/live/code",
        virtualenv="cat VENV/pyvenv.cfg",
        static_files="ls /srv/bank/live/static",
        media="cat /srv/bank/media/own",
        data="cat /srv/bank/data/own",
        home="ls /srv/bank/home",
        environment="cat /etc/deploykit/bank.env",
        slots_environment="cat /etc/deploykit/bank.SLOT.env",
        run_folder="ls /run/bank",
        redis_configuration="cat /etc/deploykit/redis-bank.conf",
        environment_in_proc="cat /proc/PID/environ",
        descriptors_in_proc="ls /proc/PID/fd/",
        working_folder_in_proc="ls /proc/PID/cwd/",
        root_in_proc="cat /proc/PID/root/srv/bank/data/own",
        maps_in_proc="cat /proc/PID/maps | grep .",
    ),
    *_several(
        "root",
        "read root's",
        passwords_of_bank="cat /etc/deploykit/bank.passwords",
        secrets_of_bank="cat /var/lib/deploykit/secrets/bank.json",
        record_of_bank="cat /var/lib/deploykit/apps/bank.json",
        secrets="ls /var/lib/deploykit/secrets",
        folder_of_bank="ls /srv/bank",
        manifest="cat /var/lib/deploykit/manifest.json",
        journal="cat /var/lib/deploykit/journal.jsonl",
        runs="ls /var/lib/deploykit/runs",
        dumps="ls /var/backups/deploykit",
        dump_of_bank="cat /var/backups/deploykit/bank/own",
        log_of_bank="cat /var/log/deploykit/bank-SLOT.log",
        access_log_of_bank="cat /var/log/nginx/bank.access.log",
        systemd_journal="journalctl -q _UID=0 -n 1 | grep .",
        shadow="cat /etc/shadow",
        home="ls /root",
        supervisor_file_of_bank_through_its_socket="supervisorctl pid",
        database_files="ls /var/lib/postgresql/*/main/base",
        database_log="cat /var/log/postgresql/*.log",
        folder_of_banks_sockets="ls /run/deploykit/bank",
    ),
    *_several(
        "root",
        "write",
        banks_code=_touch("/srv/bank/live/code/new.py"),
        banks_folder=_touch("/srv/bank/new"),
        banks_media=_touch("/srv/bank/media/new"),
        banks_data=_touch("/srv/bank/data/new"),
        banks_run_folder=_touch("/run/bank/new"),
        banks_sockets=_touch("/run/deploykit/bank/new"),
        folder_of_all_sockets=_touch("/run/deploykit/new"),
        own_sockets=_touch("/run/deploykit/evil/new"),
        own_code=_touch("/srv/evil/live/code/new.py"),
        own_folder=_touch("/srv/evil/new"),
        own_releases=_touch("/srv/evil/releases/new"),
        own_environment=": >>/etc/deploykit/evil.env",
        etc=_touch("/etc/deploykit/new"),
        tmpfiles=_touch("/etc/tmpfiles.d/new.conf"),
        own_tmpfiles=": >>/etc/tmpfiles.d/deploykit-evil-live.conf",
        supervisor=_touch("/etc/supervisor/conf.d/new.conf"),
        units=_touch("/etc/systemd/system/new.service"),
        nginx=_touch("/etc/nginx/conf.d/new.conf"),
        cron=_touch("/etc/cron.d/new"),
        programs=_touch("/usr/local/lib/deploykit/new"),
        agent=_touch("/var/lib/deploykit/agent/new"),
        shared_virtualenvs=_touch("/var/lib/deploykit/venvs/new"),
        uv_cache=_touch("/var/cache/deploykit/uv/new"),
        uv=_touch("/opt/deploykit/new"),
        dumps=_touch("/var/backups/deploykit/evil/new"),
        logs=_touch("/var/log/deploykit/new"),
        run=_touch("/run/new"),
        srv=_touch("/srv/new"),
    ),
    *_several(
        "root",
        "touch",
        banks_server_by_a_signal="kill -0 PID",
        banks_server_by_ptrace=_PTRACE,
        banks_priority="renice -n 0 -p PID",
        banks_namespaces="nsenter -t PID -m true",
        supervisor_by_a_signal="kill -0 $(pgrep -o supervisord)",
        nginx_by_a_signal="kill -0 $(pgrep -o nginx)",
        postgresql_by_a_signal="kill -0 $(pgrep -o postgres)",
        supervisors_socket=_CONNECT.format("/run/supervisor.sock"),
        banks_socket=_CONNECT.format("/run/deploykit/bank/live.sock"),
        banks_slot=_CONNECT.format("/run/deploykit/bank/SLOT.sock"),
        nginx_by_systemd="systemctl --no-ask-password reload nginx",
        systemd_with_a_unit="systemd-run --no-ask-password --quiet true",
        another_user_by_runuser="runuser -u bank -- true",
        root_by_sudo="sudo -n true",
        hard_links="ln /etc/deploykit/bank.env /srv/evil/data/link && rm /srv/evil/data/link",
        owners="touch /srv/evil/data/o && chown bank /srv/evil/data/o && rm /srv/evil/data/o",
        roots_of_programs="chroot / true",
        raw_sockets="python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
        ports_of_nginx="python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.9\", 81))'",
    ),
    *_several(
        "bank",
        "ask bank's",
        database=_psql("-d bank"),
        database_as_bank=_psql("-d bank -U bank"),
        cache="redis-cli -s /run/redis-bank/redis.sock ping | grep PONG",
        cache_by_its_port="redis-cli -p PORT --no-auth-warning -a $(sed -n 's/^requirepass *\"*\\([^\"]*\\).*/\\1/p'"
        " /etc/deploykit/redis-bank.sessions.conf) ping | grep PONG",
    ),
    *_several(
        "postgres",
        "have PostgreSQL",
        take_a_superuser=_psql("-d evil -U postgres"),
        run_a_program=_psql("-d evil", "COPY (SELECT 1) TO PROGRAM 'true'"),
        read_a_file=_psql("-d evil", "SELECT pg_read_file('/etc/passwd')"),
        list_a_folder=_psql("-d evil", "SELECT pg_ls_dir('/etc')"),
        import_a_file=_psql("-d evil", "SELECT lo_unlink(lo_import('/etc/passwd'))"),
        write_a_file=_psql("-d evil", "COPY (SELECT 1) TO '/tmp/from-postgresql'"),
        be_bank=_psql("-d evil", "SET ROLE bank"),
        make_a_role=_psql("-d evil", "CREATE ROLE more; DROP ROLE more"),
        change_its_settings=_psql("-d evil", "ALTER SYSTEM RESET work_mem"),
        lift_its_limit=_psql("-d evil", "BEGIN; ALTER ROLE evil CONNECTION LIMIT -1; ROLLBACK"),
        tell_passwords=_psql("-d evil", "SELECT rolpassword FROM pg_authid"),
        look_at_a_file=_psql("-d evil", "SELECT pg_stat_file('base')"),
        trust_a_language=_psql("-d evil", "BEGIN; CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x', 'y'; ROLLBACK")
        + ' 2>&1 | grep "could not access file"',
    ),
]


def outcomes(host: Host, user: str, filled: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Each attempt's exit status and last words, as a user; all in one exec."""
    words = ["python3", "-c", _RUN]
    if user != "root":
        words = ["env", "--chdir=/", "runuser", "-u", user, "--", *words]
    done = host.machine.run(*words, stdin=json.dumps(filled).encode(), seconds=300)
    return {name: (status, said) for name, (status, said) in json.loads(done.stdout).items()}
