"""The tools that are measured: how each is told about the job, and how a person calls it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from job import THREADS, WORKERS, Job

from deploykit.sandbox import Sandbox

HERE = Path(__file__).resolve().parent


class Tool:
    """One tool with one project and a home folder that knows nothing else."""

    name = ""
    learns = True  # whether the second run may differ from the third

    def __init__(self, folder: Path, job: Job, box: Sandbox) -> None:
        self.job, self.box = job, box
        self.home = folder / "home"
        (self.home / ".ssh").mkdir(mode=0o700, parents=True)
        self.address, self.port = box.address, box.port
        self.aim(box.address, box.port)

    def aim(self, address: str, port: int) -> None:
        """From now on the host is reached there: itself, or a proxy before it."""
        self.address, self.port = address, port
        place = address if port == 22 else f"[{address}]:{port}"
        ssh = self.home / ".ssh"
        (ssh / "known_hosts").write_text(f"{place} {self.box.host_key}\n")
        (ssh / "config").write_text(
            f"Host {address}\n  User root\n  Port {port}\n  IdentityFile {self.box.identity}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {ssh}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        self.tell()

    def tell(self) -> None:
        """Writes what the tool reads: the host, and what each app is."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What a person types."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Of the command."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "USER", "LOGNAME") if name in os.environ}
        return {**kept, "HOME": str(self.home)}

    def idle(self, output: str) -> bool:
        """Whether the tool itself says that there was nothing to do."""
        raise NotImplementedError


class Deploykit(Tool):
    """This project: `fab deploy`."""

    name = "deploykit"

    def tell(self) -> None:
        lines = [f'[hosts.bench]\naddress = "{self.address}"\nuser = "root"\nport = {self.port}\n']
        for app in self.job.apps:
            lines.append(f'[apps.{app.name}]\nsource = "{app.name}"\ndomains = ["{app.domain}"]\nhealth = "/healthz"\n')
            lines.append(f"[apps.{app.name}.web]\nworkers = {WORKERS}\nthreads = {THREADS}\n")
            values = "".join(f'{name} = "{value}"\n' for name, value in app.env.items())
            lines.append(f"[apps.{app.name}.env]\n{values}")
        (self.job.folder / "deploykit.toml").write_text("\n".join(lines))
        (self.job.folder / "fabfile.py").write_text("from deploykit.tasks import *\n")

    def command(self) -> list[str]:
        return [str(Path(sys.executable).with_name("fab")), "deploy"]

    def environment(self) -> dict[str, str]:
        # Another checkout can be measured; what is installed is found without it.
        path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
        return {**super().environment(), **path}

    def idle(self, output: str) -> bool:
        return "nothing to do" in output


class Limit(Tool):
    """The ruler: a hand-written shell script, one connection."""

    name = "limit"

    def tell(self) -> None:
        (self.job.folder / "apps.txt").write_text("".join(f"{app.name} {app.domain}\n" for app in self.job.apps))

    def command(self) -> list[str]:
        config = str(self.home / ".ssh/config")
        return ["bash", str(HERE / "limit/deploy.sh"), str(self.job.folder), self.address, "-F", config]

    def idle(self, output: str) -> bool:
        return output.strip() == ""


PEERS = HERE / ".venv"


def install() -> None:
    """The peers at their pinned versions, in a virtualenv of their own; nothing when they are there."""
    if shutil.which("rsync") is None:
        raise RuntimeError("Ansible's synchronize needs rsync on this machine: apt-get install rsync")
    wanted = (HERE / "requirements.txt").read_text()
    mark = PEERS / "requirements.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    print("installing the peers (once)", flush=True)
    shutil.rmtree(PEERS, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    pip = [str(PEERS / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
    mark.write_text(wanted)


class Peer(Tool):
    """A tool out of that virtualenv."""

    learns = False

    def environment(self) -> dict[str, str]:
        own = super().environment()
        return {**own, "PATH": f"{PEERS}/bin:{own['PATH']}"}

    def data(self) -> dict[str, object]:
        """What its inventory says beside where the host is."""
        return {
            "workers": WORKERS,
            "threads": THREADS,
            "project": str(self.job.folder),
            "apps": [
                {
                    "name": app.name,
                    "domain": app.domain,
                    "secret_key": f"secret-of-{app.name}-" + "x" * 40,
                    "env": app.env,
                }
                for app in self.job.apps
            ],
        }


def _secret(app: str) -> str:
    """The same one in every run, as out of a vault."""
    return hashlib.sha256(app.encode()).hexdigest()


class Ansible(Peer):
    """ansible-core and its collections, pipelining and ControlPersist on."""

    name = "ansible"

    def tell(self) -> None:
        host = {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.box.identity),
            "ansible_ssh_common_args": f"-F {self.home}/.ssh/config",
        }
        # JSON is YAML, too
        inventory = {"web": {"hosts": {"bench": host}, "vars": self.data()}}
        (self.job.folder / "inventory.yml").write_text(json.dumps(inventory, indent=1))

    def command(self) -> list[str]:
        return ["ansible-playbook", "-i", str(self.job.folder / "inventory.yml"), str(HERE / "ansible/site.yml")]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ANSIBLE_CONFIG": str(HERE / "ansible/ansible.cfg"), "LC_ALL": "C.UTF-8"}

    def idle(self, output: str) -> bool:
        return "changed=0 " in output


class Mitogen(Ansible):
    """The same playbook by mitogen's strategy."""

    name = "mitogen"

    def environment(self) -> dict[str, str]:
        plugins = next(PEERS.glob("lib/python3*/site-packages/ansible_mitogen/plugins/strategy"))
        own = {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}
        return {**super().environment(), **own}


class Pyinfra(Peer):
    """pyinfra 3."""

    name = "pyinfra"

    def tell(self) -> None:
        data = {
            "ssh_hostname": self.address,
            "ssh_port": self.port,
            "ssh_user": "root",
            "ssh_key": str(self.box.identity),
            "ssh_known_hosts_file": str(self.home / ".ssh/known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            **self.data(),
        }
        (self.job.folder / "inventory.py").write_text(f"web = [('bench', {data!r})]\n")

    def command(self) -> list[str]:
        folder = HERE / "pyinfra"
        return [
            "pyinfra",
            "--chdir",
            str(folder),
            "-y",
            str(self.job.folder / "inventory.py"),
            str(folder / "deploy.py"),
        ]

    def idle(self, output: str) -> bool:
        return re.search(r"Grand total +\d+ +- ", output) is not None


TOOLS: dict[str, type[Tool]] = {tool.name: tool for tool in (Limit, Deploykit, Pyinfra, Ansible, Mitogen)}
