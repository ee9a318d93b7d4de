"""A seed says what is done, what goes wrong meanwhile, and when; afterwards all must be as if nothing had happened."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .. import conftest, machines
from ..conftest import WARM
from ..site import Host, Project, eventually
from . import kinds, ledger
from .judge import Judge
from .load import Load
from .watch import Watch

#: MiB: small enough to be filled.
DISK = 3000
#: How long a command may take; one that waits for ever is a fault of its own.
SECONDS = 150


@dataclass(frozen=True)
class Seed:
    """What one number stands for."""

    number: int
    step: str
    kind: Callable[[random.Random], kinds.Fault]
    text: str
    pause: float

    def __str__(self) -> str:
        moment = f"{self.text or 'any event'} + {self.pause} s"
        return f"seed {self.number}: {self.kind.__name__} during {self.step} at {moment}"


#: What a run tells of in each step: moments for a fault.
_MOMENTS = {
    "release": ("", '"code"', '"compile"', '"check"', '"static files"', '"dump"', '"migrate"'),
    "configuration": ('"changing"',),
    "rollback": ("",),
    "restart": ("",),
}
_ALL = ('"start"', '"processes"', '"scheduler"', '"switch"', '"drain"')
_STEPS = ("release", "release", "release", "configuration", "rollback", "restart")


def seeded(number: int) -> Seed:
    """The same for the same number, always."""
    dice = random.Random(number)
    kind = kinds.KINDS[number % len(kinds.KINDS)]
    step = "configuration" if kind is kinds.apt_locked else dice.choice(_STEPS)
    if kind is kinds.disk_full:
        step = "release"
    text = dice.choice(_MOMENTS[step] + _ALL)
    return Seed(number, step, kind, text, round(dice.choice([0, 0, dice.uniform(0, 0.3), dice.uniform(0, 2)]), 3))


@dataclass
class Campaign:
    """A host with the ledger, its judge, and what is left of numbers."""

    project: Project
    judge: Judge
    numbers: itertools.count[int]
    version: int = 1
    config: int = 0

    @property
    def host(self) -> Host:
        return self.project.host

    def change(self, step: str, seed: Seed | None = None) -> tuple[str, ...]:
        """Edits the project for a step; the command of `fab` that does it."""
        if seed is not None and seed.kind is kinds.apt_locked:
            self.host.sh("dpkg --purge tree")  # so that there is something for apt to do
        if step == "release":
            self.version += 1
            ledger.release(self.project.folder / ledger.APP, self.version)
        elif step == "configuration":
            self.config += 1
            text = self.project.toml.read_text()
            self.project.write(re.sub(r'STEP = "\d+"', f'STEP = "{self.config}"', text))
        else:
            return (step, "--app", ledger.APP)
        return ("deploy",)

    def undisturbed(self) -> None:
        """Each kind of step once, before any fault: how the host is then is how it must be after each fault."""
        for step in ("release", "configuration", "rollback", "restart"):
            ran = self.project.fab(*self.change(step), seconds=SECONDS)
            assert ran.status == 0, ran.text
            if step == "rollback":
                self.project.deploy()
            if step == "configuration":  # by now there are two releases, and each slot was live once
                self.judge.calm = self.judge.see()
            elif step != "release":
                eventually(lambda: self.judge.see() == self.judge.calm, 10)
                now = self.judge.see()
                assert now == self.judge.calm, f"after a {step}: {sorted(now ^ self.judge.calm)}"
        assert len(self.judge.calm) > 200 and any("/srv/ledger/live" in line for line in self.judge.calm)

    def run(self, number: int) -> None:
        """One seed: disturb, recover, judge. A failure says all that is needed to do it again."""
        seed = seeded(number)
        fault = seed.kind(random.Random(f"{number} fault"))
        found: list[str] = []
        said: list[str] = []
        with Load(self.host.address, self.numbers) as load:
            command = self.change(seed.step, seed)
            when = self._disturb(seed, fault, command, said)
            struck = load.now
            if fault.costs and seed.kind is not kinds.postgres_stopped and not eventually(self._answers, 30):
                found.append("it does not answer again by itself")
            if fault.mend:
                self.host.sh(fault.mend)
            for _ in range(2):
                try:
                    ran = self.project.fab("deploy", seconds=SECONDS)
                except subprocess.TimeoutExpired:
                    said.append(f"fab deploy: not at its end after {SECONDS} s")
                    continue
                said.append(f"fab deploy: exit {ran.status}: {ran.text[-1500:]}")
                if ran.status == 0:
                    break
                if "wait until it has ended" in ran.text:  # what was begun goes on without its fab: it is waited for
                    eventually(self._idle, 60)
            else:
                found.append("no rerun of `fab deploy` ended well")
            eventually(self._answers, 20)
        found += self.judge.differences(load)
        if not fault.costs:
            found += [f"lost: {each}" for each in load.lost]
        self._clear(seed)
        print(
            f"{seed}: {when}; {len(load.good)} requests well, {len(load.lost)} lost, away for {load.outage():.2f} s,"
            f" struck after {struck:.1f} s"
        )
        words = "\n".join([*found[:40], "--", *said])
        where = "tests/hosts/slow/test_campaign.py" if number >= 20 else "tests/hosts/faults"
        if found:
            again = f"again: pytest {where} -k 'seed{number}-' -s"
            pytest.fail(f"{seed} ({when})\n{words}\n{again}", pytrace=False)

    def _disturb(self, seed: Seed, fault: kinds.Fault, command: tuple[str, ...], said: list[str]) -> str:
        """Runs the command and has the fault strike it; when that was."""
        watch = Watch(self.host, seed.text, seed.pause, fault.there)
        when = watch.at_once() if fault.early else ""
        argv, env = self.project.command(*command)
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=self.project.folder, env=env,
        ) as fab:  # fmt: skip
            when = when or watch.strike()
            fault.here(self.project, fab)
            try:
                text, _ = fab.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                fab.kill()
                text = f"not at its end after {SECONDS} s: killed"
        said.append(f"fab {' '.join(command)}: exit {fab.returncode}: {text[-1500:]}")
        return when

    def _idle(self) -> bool:
        return self.host.run("flock", "--nonblock", "/var/lib/deploykit/lock", "true", check=False).returncode == 0

    def _answers(self) -> bool:
        return self.host.curl(ledger.DOMAIN).status == 200

    def _clear(self, seed: Seed) -> None:
        """What the fault itself has left, so that the next seed begins as the first did."""
        if seed.kind is kinds.connection_dropped:
            kinds.undo_drop(self.host)


@contextlib.contextmanager
def standing(suffix: str, folder: Path, *, calm: bool = True) -> Iterator[Campaign]:
    """A host with the ledger on it; with `calm` each step was done once, undisturbed, and seen by the judge."""
    with machines.standing(conftest.chosen, conftest.unique(suffix), WARM, DISK) as machine:
        host = Host(machine)
        kinds.give_a_clock(host)
        project = Project(folder, host)
        ledger.write(folder / ledger.APP)
        project.write(ledger.TOML.replace("HOST\n", host.table))
        project.deploy()
        campaign = Campaign(project, Judge(project), itertools.count(1))
        if not calm:
            yield campaign
            return
        with Load(host.address, campaign.numbers) as load:
            campaign.undisturbed()
        assert load.lost == []
        found = campaign.judge.differences(load)
        assert not found, "\n".join(found)
        yield campaign


def named(number: int) -> str:
    """What a test of a seed is called."""
    seed = seeded(number)
    return f"seed{number}-{seed.kind.__name__}-{seed.step}"
