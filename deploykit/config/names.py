"""Names that an app may not have, since its OS user, group, folders or database would be somebody else's."""

from __future__ import annotations

import re

APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
#: What nginx serves files at: nothing in it has a meaning in nginx's configuration.
URL_PATH = re.compile(r"/([A-Za-z0-9_~-][A-Za-z0-9._~-]*/)+")
#: A WSGI or ASGI application, as it stands on a command line.
APPLICATION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*")

# /usr/share/base-passwd/{passwd,group}.master of Debian 13 and Ubuntu 24.04.
_BASE = """
root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats _apt nobody adm tty disk
kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff users nogroup
"""

# Made by packages that servers commonly have, by cloud images, and by the machine's own services.
_SERVICES = """
sshd ssh systemd systemd-network systemd-resolve systemd-timesync systemd-journal systemd-journal-remote
systemd-journal-upload systemd-coredump systemd-bus-proxy systemd-oom messagebus dbus syslog rsyslog uuidd tcpdump
tss landscape pollinate fwupd-refresh lxd lxc dnsmasq polkitd polkit usbmux avahi avahi-autoipd rtkit input kvm sgx
render netdev crontab cron at atd mlocate plocate ssl-cert ntp ntpd ntpsec chrony postfix postdrop exim
debian-exim dovecot dovenull opendkim opendmarc bind named unbound ftp vsftpd proftpd nfs statd rpc snmp munin
nagios zabbix telegraf prometheus node-exporter grafana collectd fail2ban crowdsec clamav munge puppet salt chef
ansible vagrant ubuntu debian admin ec2-user cloud-init cloud-user azureuser google-sudoers docker containerd podman
libvirt libvirt-qemu git gitlab jenkins wheel guest
"""

# What deploykit installs, and folders below /srv, /run, /etc and /var that are taken.
_OURS = """
deploykit nginx apache apache2 httpd caddy haproxy varnish postgres postgresql pgbouncer mysql mariadb mongodb sqlite
redis redis-server valkey memcached rabbitmq elasticsearch opensearch supervisor supervisord gunicorn uvicorn uwsgi
celery django python python3 uv pip certbot letsencrypt acme ssl tls
template0 template1 public none all default localhost
lock shm user udev mount network initctl credentials log tmp screen
"""

RESERVED = frozenset((_BASE + _SERVICES + _OURS).split())

#: PostgreSQL's own databases and roles; `pg_` is its prefix.
RESERVED_DATABASES = frozenset(
    {"postgres", "template0", "template1", "root", "public", "none", "user", "all", "replication"}
)


def app_name_mistake(name: str) -> str:
    """Why `name` cannot be an app's name; "" when it can."""
    if APP_NAME.fullmatch(name):
        if name in RESERVED or name.startswith(("systemd-", "redis-")):
            return "this name belongs to the system, or to a program or folder on the host; choose another"
        return ""
    if not name:
        return "the name is empty"
    if len(name) > 31:
        return f"the name has {len(name)} characters; a Linux user's name holds at most 31 here"
    if name != name.lower():
        return "the name has upper-case letters; it names a Linux user, a folder and a database"
    if name[0].isdigit() or name[0] == "-":
        return "the name does not begin with a letter"
    strange = next(letter for letter in name if not re.fullmatch(r"[a-z0-9-]", letter))
    return f"the name has {strange!r} in it; it names a Linux user, a folder and a database"


APP_NAME_ALLOWED = "lower-case letters, digits and -, at most 31, beginning with a letter"


def domain_mistake(text: str) -> tuple[str, str, str]:
    """(the domain as DNS has it, "", "") or ("", why it is none, what was probably meant).

    International names become punycode. Python's own codec follows IDNA 2003: the few letters that
    IDNA 2008 reads otherwise (such as the German sharp s) are refused, since they would name another domain.
    """
    if "://" in text:
        return "", "a domain has no scheme", text.split("://", 1)[1].split("/")[0].split(":")[0]
    if "/" in text:
        return "", "a domain has no path", text.split("/")[0]
    if any(letter.isspace() for letter in text):
        return "", "a domain has no spaces", "".join(text.split())
    if re.fullmatch(r"[^:]*:\d+", text):
        return "", "a domain has no port", text.rsplit(":", 1)[0]
    if text.endswith("."):
        return "", "a domain is written without the final dot", text.rstrip(".")
    if text.startswith("."):
        return "", "a domain for all names below it begins with *.", f"*{text}"
    if text == "_":
        return "", "the catch-all belongs to deploykit: it refuses unknown hosts", ""
    wildcard, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    if not name.isascii():
        if set(name) & set("\u00df\u03c2\u200c\u200d"):
            return (
                "",
                "this name has a letter that old and new rules spell differently; write it as xn--...",
                "",
            )
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return "", "this is no valid international domain", ""
    name = name.lower()
    if not re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", name) or len(name) > 253:
        return "", "this is no valid domain", nearest_domain(text)
    if wildcard and "." not in name:
        return "", "a wildcard needs a domain with a dot after it", ""
    return wildcard + name, "", ""


def nearest_domain(text: str) -> str:
    """`my_blog.example` with what DNS does not know replaced, where that makes a domain."""
    guess = re.sub(r"\.{2,}", ".", text.lower().replace("_", "-")).strip(".-")
    return guess if re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", guess) and guess != text else ""


def secret_name_mistake(name: str) -> str:
    """Why `name` cannot be a secret's name; "" when it can."""
    return "" if SECRET_NAME.fullmatch(name) else f"{name!r} is no secret's name"


SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
