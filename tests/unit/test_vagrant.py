"""How a Vagrant machine is found: from what Vagrant 2.3.4 printed, recorded; the real one is in tests/hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit import transport, vagrant
from deploykit.config.project import HostEntry, VagrantEntry
from deploykit.errors import DeploykitError
from deploykit.operations import target

CONFIG = """\
Host web1
  HostName 127.0.0.1
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/me/a project, new/.vagrant/machines/web1/virtualbox/private_key"
  IdentitiesOnly yes
  LogLevel FATAL
"""
FOUND = (
    "1795472781,web1,metadata,provider,docker\n1795472782,web1,ssh-config,"
    + CONFIG.replace(",", "%!(VAGRANT_COMMA)").replace("\n", "\\n")
    + f"\n{CONFIG}\n"
)
NOT_READY = """\
1795472784,web1,metadata,provider,docker
1795472784,,ui,error,The provider for this machine is reporting that it\\nis not yet ready for SSH.
1795472784,,error-exit,Vagrant::Errors::SSHNotReady,The provider for this machine\\nis not yet ready for SSH.
"""
UNKNOWN = """\
1795472864,,ui,error,The machine with the name 'web9' was not found configured for\\nthis Vagrant environment.
1795472864,,error-exit,Vagrant::Errors::MachineNotFound,The machine 'web9' was not found configured.
"""
STATUS = """\
1795472870,web1,metadata,provider,docker
1795472870,db1,metadata,provider,docker
1795472871,web1,state,not_created
1795472871,,ui,info,Current machine states:
"""
SYNTAX = """\
1795472864,,error-exit,Vagrant::Errors::VagrantfileSyntaxError,There is a syntax error%!(VAGRANT_COMMA) line 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "vagrant"
    place.mkdir()
    (place / "Vagrantfile").touch()
    return place


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Vagrant, alone on PATH: prints what is in `ssh-config` or `status` of the returned folder."""
    place = tmp_path / "says"
    place.mkdir()
    program = place / "vagrant"
    program.write_text(
        f"""#!/bin/sh
[ "$1" = --machine-readable ] || exit 9
printf '%s\\n' "$VAGRANT_CWD" "$@" >{place}/asked
[ -f {place}/$2 ] || {{ echo 'cannot load such file -- vagrant' >&2; exit 1; }}
while IFS= read -r line; do printf '%s\\n' "$line"; done <{place}/$2
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    return place


def refused(folder: Path, machine: str = "web1") -> DeploykitError:
    with pytest.raises(DeploykitError) as caught:
        vagrant.ssh_config(folder, machine, "host web1")
    assert caught.value.where == "host web1" and caught.value.todo
    return caught.value


def test_a_running_machine(folder: Path, says: Path) -> None:
    (says / "ssh-config").write_text(FOUND)
    assert vagrant.ssh_config(folder, "web1", "host web1") == CONFIG
    assert (says / "asked").read_text().splitlines() == [str(folder), "--machine-readable", "ssh-config", "web1"]


def test_the_way_there(folder: Path, says: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Vagrant says, whatever stands in ~/.ssh/config; its host keys are new each time and nowhere noted."""
    (says / "ssh-config").write_text(FOUND)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host *\n  User wrong\n  Port 1\n  ProxyJump elsewhere\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    way = target(HostEntry("front", "front", vagrant=VagrantEntry(folder, "web1")))
    import paramiko

    connection = transport._connection(way, lambda *_: pytest.fail("asked about its host key"))
    assert (connection.user, connection.host, connection.port) == ("vagrant", "127.0.0.1", 2222)
    assert connection.gateway is None
    assert connection.ssh_config["identityfile"] == [
        "/home/me/a project, new/.vagrant/machines/web1/virtualbox/private_key"
    ]
    assert isinstance(connection.client._policy, paramiko.AutoAddPolicy)
    assert connection.connect_kwargs["allow_agent"] is False and connection.connect_kwargs["look_for_keys"] is False
    other = target(HostEntry("front", "front", "root", vagrant=VagrantEntry(folder, "web1")))
    assert transport._connection(other, lambda *_: False).user == "root"


def test_where_vagrant_checks_host_keys_so_do_we(folder: Path, says: Path) -> None:
    checked = FOUND.replace("StrictHostKeyChecking no\\n", "")
    (says / "ssh-config").write_text(checked)
    way = target(HostEntry("web1", "web1", vagrant=VagrantEntry(folder, "web1")))
    import paramiko

    policy = transport._connection(way, lambda *_: False).client._policy
    assert not isinstance(policy, paramiko.AutoAddPolicy)


def test_a_machine_that_is_not_running(folder: Path, says: Path) -> None:
    (says / "ssh-config").write_text(NOT_READY)
    error = refused(folder)
    assert error.what == "the Vagrant machine web1 is not running"
    assert error.todo == f"start it with: cd {folder} && vagrant up web1"


def test_a_machine_that_is_not_defined(folder: Path, says: Path) -> None:
    (says / "ssh-config").write_text(UNKNOWN)
    (says / "status").write_text(STATUS)
    error = refused(folder, "web9")
    assert error.what == f"there is no machine web9 in {folder}/Vagrantfile"
    assert "machines there: web1, db1\n" in error.todo and 'machine = "NAME"' in error.todo


def test_what_else_vagrant_says(folder: Path, says: Path) -> None:
    (says / "ssh-config").write_text(SYNTAX)
    assert refused(folder).what == "vagrant ssh-config web1 says: There is a syntax error, line 3"
    (says / "ssh-config").unlink()
    assert refused(folder).what == "vagrant ssh-config web1 says: cannot load such file -- vagrant"


def test_no_vagrant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert refused(folder).what == "vagrant is not installed on this machine"


def test_no_folder_and_no_vagrantfile(folder: Path, says: Path) -> None:
    """Vagrant itself would take the Vagrantfile of a folder above: that of some other machine."""
    below = folder / "below"
    assert refused(below).what == f"there is no folder {below}"
    below.mkdir()
    assert refused(below).what == f"there is no Vagrantfile in {below}"
    assert not (says / "asked").exists()
