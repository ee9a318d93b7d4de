"""The sandboxes' own network: one bridge, one address each, and a way out to the internet.

198.18.0.0/15 is the range set aside for tests of network devices (RFC 2544), so no real network uses it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from . import store
from .errors import SandboxError
from .outer import call, environment

BRIDGE = "dk0"
_TABLE = "deploykit_sandbox"
_RULES = f"""\
add table ip {_TABLE}
flush table ip {_TABLE}
add chain ip {_TABLE} postrouting {{{{ type nat hook postrouting priority srcnat; }}}}
add rule ip {_TABLE} postrouting ip saddr {{network}} ip daddr != {{network}} masquerade
"""
_TODO = "Read the message above; a firewall or a container without network rights is the usual reason."


def _prefix() -> str:
    """The first three numbers of our network: those in use already, else the first that no other interface has.

    A sandbox in a sandbox must not take the outer one's network for its own.
    """
    for record in store.records():
        return record.address.rpartition(".")[0]
    others = [line.split() for line in _run("ip", "-4", "-o", "address", "show").splitlines()]
    taken = {words[3].rpartition(".")[0] for words in others if words[1] != BRIDGE}
    return next(prefix for prefix in (f"198.18.{third}" for third in range(256)) if prefix not in taken)


def gateway() -> str:
    """The bridge's address: the sandboxes' way out."""
    return f"{_prefix()}.1"


def _hardware_address() -> str:
    """The bridge's: one that is administered locally (02), with our network's numbers in it."""
    return "02:64:6b:" + ":".join(f"{int(number):02x}" for number in _prefix().split("."))


def free_address() -> str:
    """An address no sandbox has. Call it, and write the record, under `store.shared_lock("network")`."""
    taken = {record.address for record in store.records()}
    prefix = _prefix()
    for octet in range(2, 255):
        if (address := f"{prefix}.{octet}") not in taken:
            return address
    raise SandboxError("all 253 addresses are taken", "sandbox network", "Take some down: fab sandbox list, then down.")


def ensure() -> None:
    """Bridge, forwarding and masquerading as they should be; does nothing twice. Needs the network lock."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        _run("ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    # Without an address of its own a bridge takes the lowest of its ports'. When that sandbox goes down it takes
    # another, and the other sandboxes send to the old one until they ask again: connections stood still for a minute.
    _run("ip", "link", "set", BRIDGE, "address", _hardware_address())
    if f" {gateway()}/" not in _run("ip", "-4", "address", "show", "dev", BRIDGE):
        _run("ip", "address", "add", f"{gateway()}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    if forward.read_text(encoding="ascii").strip() != "1":
        forward.write_text("1", encoding="ascii")
    call(["nft", "-f", "-"], "sandbox network", _TODO, stdin=_RULES.format(network=f"{_prefix()}.0/24").encode())
    _pass_docker(True)


def _pass_docker(wanted: bool) -> None:
    """Docker may let nothing through that is not its own, and asks for exceptions in this chain.

    https://docs.docker.com/engine/network/packet-filtering-firewalls/
    """
    iptables = shutil.which("iptables", path=environment()["PATH"])

    def ask(*words: str) -> bool:
        return subprocess.run([str(iptables), "-w", *words], capture_output=True, check=False).returncode == 0

    if iptables is None or not ask("-n", "-L", "DOCKER-USER"):
        return
    for direction in ("-i", "-o"):
        rule = ("DOCKER-USER", direction, BRIDGE, "-j", "ACCEPT")
        if ask("-C", *rule) != wanted:
            _run(iptables, "-w", "-I" if wanted else "-D", *rule)


def release() -> None:
    """Take the bridge and the rules away once no sandbox is left. Needs the network lock.

    Forwarding stays on: something else may have come to need it.
    """
    if store.HOSTS.is_dir() and any(store.HOSTS.iterdir()):
        return
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        _run("ip", "link", "delete", BRIDGE)
    if _TABLE in _run("nft", "list", "tables"):
        _run("nft", "delete", "table", "ip", _TABLE)
    _pass_docker(False)


def veth(octet: int) -> Path:
    """Where the kernel shows the outer end of one sandbox's cable, while it is plugged in."""
    return Path(f"/sys/class/net/vb-dk{octet}")


def nameservers() -> str:
    """A resolv.conf that works inside: systemd-resolved's stub listens on the outer loopback only."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]
        if any(not server.startswith("127.") and server != "::1" for server in servers):
            return text
    raise SandboxError(
        "no name server that a sandbox could reach",
        "/etc/resolv.conf",
        "Name one that is not on the loopback, e.g. `nameserver 9.9.9.9`.",
    )


def _run(*argv: str) -> str:
    return call(list(argv), "sandbox network", _TODO)
