"""RESULTS.md and the plot, from the raw figures; `method.md` and `profile.md`, written by hand, become sections."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import plot
from results import Line, median, newest

HERE = Path(__file__).resolve().parent
RULER = "limit"
TOOLS = ("limit", "deploykit", "pyinfra", "mitogen", "ansible")
NAMES = {
    "limit": "the limit (`limit/`)",
    "deploykit": "**deploykit**",
    "pyinfra": "pyinfra",
    "mitogen": "Ansible with mitogen",
    "ansible": "Ansible",
}
CASES = {
    "nothing": "Nothing to do",
    "change": "One line of one app's configuration",
    "redeploy": "One app's source changed",
    "first": "First deploy to a bare host",
}
#: Of the ruler's time, at most.
TARGETS = {"nothing": 1.5, "first": 1.15, "change": 1.5, "redeploy": 1.5}
FURTHER = 5.0  # milliseconds for one more app, with nothing to do
WAYS = {
    "slots": "**deploykit**: two slots, the socket's link is swapped",
    "gunicorn HUP": "`supervisorctl signal HUP`: gunicorn reloads",
    "gunicorn USR2": "`kill -USR2`, later `-QUIT`: a second master",
    "supervisorctl restart": "`supervisorctl restart`",
}


@dataclass(frozen=True)
class Cells:
    """The measurements of the four cases, by (case, tool, apps, far)."""

    lines: dict[tuple[object, ...], list[Line]]

    def of(self, case: str, tool: str, apps: int, far: bool) -> list[Line]:
        """The runs of one cell, none when it was not measured."""
        return self.lines.get((case, tool, apps, far), [])

    def places(self, case: str) -> list[tuple[int, bool]]:
        """The (apps, far) that a case was measured at, near ones first."""
        found = {(int(str(key[2])), bool(key[3])) for key in self.lines if key[0] == case}
        return sorted(found, key=lambda place: (place[1], place[0]))

    def tools(self, case: str) -> list[str]:
        """The tools that did a case."""
        return [tool for tool in TOOLS if any(key[0] == case and key[1] == tool for key in self.lines)]

    def ratio(self, case: str, tool: str, apps: int, far: bool) -> float | None:
        """How many times the ruler's time this is: by pairs, where each run has one of the ruler's just before it."""
        mine, ruler = self.of(case, tool, apps, far), self.of(case, RULER, apps, far)
        if not mine or not ruler:
            return None
        if len(mine) == len(ruler) and mine[0]["session"] == ruler[0]["session"]:
            return statistics.median(own["wall"] / its["wall"] for own, its in zip(mine, ruler, strict=True))
        return median(mine, "wall") / median(ruler, "wall")


def write(lines: Sequence[Line], folder: Path) -> None:
    """RESULTS.md and results.svg in `folder`."""
    cells = Cells(newest((line for line in lines if line["kind"] == "case"), "case", "tool", "apps", "far"))
    (folder / "results.svg").write_text(plot.drawn(cells.lines))
    parts = [
        "# Measured",
        "",
        "Written by `benchmarks/run.py` from `results.jsonl`. Times are medians of whole processes, from fork to exit;",
        "how many times the limit's one is, is the median of pairs of runs, one just after the other.",
        "",
        *_targets(cells),
        "![Seconds for each case, by number of apps](results.svg)",
        "",
        *(text for case in CASES for text in _case(cells, case)),
        *_profile(),
        *_load(lines),
        *_growth(lines),
        *_memory(lines),
        *_sessions(lines),
        (HERE / "method.md").read_text().strip(),
    ]
    (folder / "RESULTS.md").write_text("\n".join(parts).rstrip() + "\n")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _targets(cells: Cells) -> list[str]:
    rows = []
    for case, most in TARGETS.items():
        for apps, far in cells.places(case):
            found = cells.ratio(case, "deploykit", apps, far)
            if found is not None and not far:
                # what is shown decides: 1.499 and 1.5 are the same measurement
                met = "yes" if round(found, 2) <= most else "**no**"
                rows.append([CASES[case].lower(), _apps(apps), f"≤ {most:g} × the limit", f"{found:.2f} ×", met])
    counts = [apps for apps, far in cells.places("nothing") if not far and cells.of("nothing", "deploykit", apps, far)]
    if len(counts) > 1:
        few, many = (median(cells.of("nothing", "deploykit", apps, False), "wall") for apps in (counts[0], counts[-1]))
        cost = 1000 * (many - few) / (counts[-1] - counts[0])
        met = "yes" if round(cost, 1) < FURTHER else "**no**"
        span = f"{counts[0]} to {counts[-1]} apps"
        rows.append(["nothing to do: one app more", span, f"< {FURTHER:g} ms", f"{cost:.1f} ms", met])
    return ["## Targets", "", *_table(["deploykit", "apps", "target", "measured", "met"], rows)] if rows else []


def _apps(count: int) -> str:
    return f"{count} app{'s' if count > 1 else ''}"


def _case(cells: Cells, case: str) -> list[str]:
    places, tools = cells.places(case), cells.tools(case)
    if not places:
        return []

    def time(tool: str, apps: int, far: bool) -> str:
        runs = cells.of(case, tool, apps, far)
        if not runs:
            return "-"
        ratio = cells.ratio(case, tool, apps, far)
        share = f" ({ratio:.2f} ×)" if ratio is not None and tool != RULER else ""
        return f"{_seconds(median(runs, 'wall'))}{share}"

    head = [f"{_apps(apps)}{', 50 ms away' if far else ''}" for apps, far in places]
    rows = [[NAMES[tool], *(time(tool, apps, far) for apps, far in places)] for tool in tools]
    return [
        f"## {CASES[case]}",
        "",
        "Seconds, and how many times the limit's:",
        "",
        *_table(["", *head], rows),
        "What it took:",
        "",
        *_table(
            [
                "",
                "apps",
                "runs",
                "fastest",
                "slowest",
                "local CPU, s",
                "connections",
                "execs",
                "kB sent",
                "kB received",
            ],
            [
                _took(cells.of(case, tool, apps, far), tool, apps, far)
                for tool in tools
                for apps, far in places
                if cells.of(case, tool, apps, far)
            ],
        ),
    ]


def _took(runs: Sequence[Line], tool: str, apps: int, far: bool) -> list[str]:
    walls = [float(line["wall"]) for line in runs]
    return [
        NAMES[tool],
        f"{apps}{', 50 ms away' if far else ''}",
        str(len(runs)),
        _seconds(min(walls)),
        _seconds(max(walls)),
        f"{median(runs, 'cpu'):.2f}",
        *(f"{median(runs, name):.0f}" for name in ("connections", "execs")),
        *(f"{median(runs, name) / 1000:.0f}" for name in ("sent", "received")),
    ]


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _profile() -> list[str]:
    place = HERE / "profile.md"
    return [place.read_text().strip(), ""] if place.exists() else []


def _load(lines: Sequence[Line]) -> list[str]:
    groups = newest((line for line in lines if line["kind"] == "load"), "way")
    if not groups:
        return []

    def row(way: str, runs: Sequence[Line]) -> list[str]:
        lost, asked = (sum(line[name] for line in runs) for name in ("lost", "requests"))
        new = sum(bool(line["new"]) for line in runs)
        return [
            WAYS[way],
            f"{lost} of {asked}",
            f"{max(line['slowest'] for line in runs):.2f}",
            f"{max(line['outage'] for line in runs):.2f}",
            f"{new} of {len(runs)}",
            ", ".join(sorted({line["state"] for line in runs})),
        ]

    return [
        "## While people use the site",
        "",
        "A new release goes live under 50 requests a second, by 16 visitors with a new connection for each request; "
        "one gunicorn worker with two threads. Sums and worst of all runs:",
        "",
        *_table(
            [
                "",
                "lost",
                "slowest answer, s",
                "longest time without one, s",
                "new release seen",
                "supervisor says then",
            ],
            [row(way, groups[(way,)]) for way in WAYS if (way,) in groups],
        ),
    ]


def _growth(lines: Sequence[Line]) -> list[str]:
    found: list[str] = []
    files = newest((line for line in lines if line["kind"] == "files"), "files")
    if files:
        rows = [
            [f"{key[0]:,}", f"{median(runs, 'plan'):.2f}", f"{median(runs, 'made'):.2f}"]
            for key, runs in sorted(files.items())
        ]
        found += ["Files of a project's own recipe on a host with one app:", ""]
        found += _table(["managed files", "plan, nothing to do, s", "deploy that made the new ones, s"], rows)
    source = newest((line for line in lines if line["kind"] == "source"), "megabytes")
    if source:
        rows = [
            [
                f"{key[0]:,}",
                *(f"{median(runs, name):.2f}" for name in ("first", "nothing", "redeploy")),
                f"{median(runs, 'sent') / 1000:.0f}",
            ]
            for key, runs in sorted(source.items())
        ]
        found += ["One app whose source has so many megabytes of incompressible files, one file of which changes:", ""]
        found += _table(["MB", "first deploy, s", "nothing to do, s", "redeploy, s", "kB sent by it"], rows)
    return ["## Growth", "", *found] if found else []


def _memory(lines: Sequence[Line]) -> list[str]:
    groups = newest((line for line in lines if line["kind"] == "memory"), "case")
    rows = [
        [CASES[str(key[0])].lower(), _apps(runs[-1]["apps"]), f"{median(runs, 'mebibytes'):.1f}", str(runs[-1]["left"])]
        for key, runs in groups.items()
    ]
    head = ["", "", "agent's peak, MiB", "its processes left afterwards"]
    return ["## Memory on the host", "", *_table(head, rows)] if rows else []


def _sessions(lines: Sequence[Line]) -> list[str]:
    """The circumstances of each session of which something is shown here."""
    measures = [line for line in lines if line["kind"] != "session"]
    keys: dict[str, Callable[[Line], object]] = {
        "case": lambda line: (line["case"], line["tool"], line["apps"], line["far"]),
        "load": lambda line: line["way"],
        "files": lambda line: line["files"],
        "source": lambda line: line["megabytes"],
        "memory": lambda line: line["case"],
    }
    shown = {(line["kind"], keys[line["kind"]](line)): line["session"] for line in measures}  # the last one wins
    texts = []
    for line in lines:
        if line["kind"] != "session" or line["session"] not in shown.values():
            continue
        own = [each for each in measures if each["session"] == line["session"] and each["kind"] == "case"]
        busy = (
            f"; other work on the cores just before each run: median {median(own, 'share'):.0%}, "
            f"at most {max(each['share'] for each in own):.0%}"
            if own
            else ""
        )
        versions = ", ".join(f"{name} {number}" for name, number in line["versions"].items())
        texts += [
            f"- {line['session']}, commit {line['commit']}: {line['machine']}; Python {line['python']}, {line['ssh']}, "
            f"{versions}{busy}{'. ' + line['remark'] if line['remark'] else ''}"
        ]
    return ["## Circumstances", "", "Of each cell the newest session that measured it is shown.", "", *texts, ""]
