"""cloud-init, which sets a new machine up while people log in to it already: no package is installed before it is done.

It rewrites apt's sources, updates the lists, installs and upgrades packages, and may reboot at the end. Ubuntu's and
Debian's cloud images have it; sshd answers when its second stage of four is done:
https://docs.cloud-init.io/en/latest/explanation/boot.html

systemd is asked, and not `cloud-init status --wait`: that one waits for ever where cloud-init was installed by hand and
never ran, and its exit status 2 for recoverable errors came with 23.4:
https://docs.cloud-init.io/en/latest/explanation/return_codes.html
The last stage has been the same unit in every version. How cloud-init ended is not our business.
"""

from __future__ import annotations

import time

from deploykit.agent.process import heard, run

LAST_STAGE = "cloud-final.service"
#: Seconds. A user's script that never ends, such as a server in the foreground, must not keep deploykit out for ever.
PATIENCE = 300.0
_PAUSE = 1.0


def wait() -> None:
    """Returns when no first boot is under way, or when it took too long: apt's own locks still keep the order then."""
    if not unfinished():
        return
    heard("waiting for cloud-init, which is still setting the machine up")
    end = time.monotonic() + PATIENCE
    while unfinished():
        if time.monotonic() > end:
            heard(f"cloud-init is not done after {PATIENCE:.0f} s: going on without it")
            return
        time.sleep(_PAUSE)


def unfinished() -> bool:
    """Whether cloud-init's last stage runs, or waits in systemd's queue for its turn.

    False where there is no cloud-init, where it is switched off, and where it has failed.
    """
    shown = run(("systemctl", "show", "--property=ActiveState,Job", LAST_STAGE), check=False).stdout
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return state.get("ActiveState") == "activating" or state.get("Job", "") not in ("", "0")
