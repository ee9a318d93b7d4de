"""Measures deploykit beside its peers on throw-away hosts of this machine. Raw figures are added to results.jsonl, and
RESULTS.md and the plot are made from all of them.

    sudo .venv/bin/python benchmarks/run.py                 # the short form, under 15 minutes on 2 cores
    sudo .venv/bin/python benchmarks/run.py --full          # everything, about 75 minutes
    sudo .venv/bin/python benchmarks/run.py nothing change --tools deploykit,limit --apps 1,10 --runs 9
    sudo .venv/bin/python benchmarks/run.py nothing --tools deploykit,limit --far
    sudo .venv/bin/python benchmarks/run.py load growth memory
    .venv/bin/python benchmarks/run.py --report             # only RESULTS.md and the plot, from what was measured

Times are those of the whole process, from fork to exit, as a person waits for it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import growth
import load
import memory
import report
from cases import CASES, Bench, Wish, say
from results import Results
from tools import TOOLS, Peer, install

from deploykit import sandbox

HERE = Path(__file__).resolve().parent
OURS = ("limit", "deploykit")
PEERS = tuple(name for name, tool in TOOLS.items() if issubclass(tool, Peer))
OTHERS = ("load", "growth", "memory")

SHORT = [
    Wish(1, OURS, CASES, firsts=1, runs=5),
    Wish(10, OURS, CASES, firsts=1, runs=3),
    Wish(1, OURS, ("nothing",), firsts=1, runs=5, far=True),
    Wish(1, PEERS, ("first", "nothing"), firsts=1, runs=1),
]
# The peers at 30 apps would take an hour by themselves: `--tools ansible --apps 30` for those who want to know.
FULL = [
    Wish(1, OURS, CASES, firsts=3, runs=15),
    Wish(10, OURS, CASES, firsts=2, runs=9),
    Wish(30, OURS, CASES, firsts=2, runs=7),
    Wish(1, OURS, CASES, firsts=1, runs=7, far=True),
    Wish(10, OURS, CASES, firsts=1, runs=5, far=True),
    Wish(1, PEERS, CASES, firsts=1, runs=3),
    Wish(1, PEERS, ("nothing",), firsts=1, runs=2, far=True),
    Wish(10, PEERS, CASES, firsts=1, runs=1),
]


def main() -> None:
    """Runs what was asked for, or says that something of it failed."""
    arguments = _arguments()
    results = Results(arguments.results)
    if arguments.report:
        report.write(results.read(), arguments.results.resolve().parent)
        return
    if arguments.fresh:
        arguments.results.unlink(missing_ok=True)
    wishes, others, repeats = _wanted(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # hosts are thrown away then, too
    sandbox.prepare(lambda text: print(text, flush=True))
    if any(name in PEERS for wish in wishes for name in wish.tools):
        install()
    results.begin(arguments.remark)
    began = time.monotonic()
    failures = []
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as place:
        folder, prefix = Path(place), arguments.prefix
        bench = Bench(folder, results.keep, prefix, arguments.patience)
        steps: list[tuple[str, Callable[[], None]]] = [
            (f"{wish.apps} apps by {', '.join(wish.tools)}", lambda wish=wish: bench.measure(wish))  # type: ignore[misc]
            for wish in wishes
        ]
        if "load" in others:
            steps.append(("load", lambda: load.measure(folder, results.keep, prefix, repeats, say)))
        if "growth" in others:
            steps.append(("files", lambda: growth.files(folder, results.keep, prefix, repeats, say)))
            steps.append(("source", lambda: growth.source(folder, results.keep, prefix, repeats, say)))
        if "memory" in others:
            steps.append(("memory", lambda: memory.measure(folder, results.keep, prefix, say)))
        for name, step in steps:
            try:
                step()
            except RuntimeError as error:
                say(f"FAILED, and left out: {name}: {error}")
                failures.append(name)
            report.write(results.read(), arguments.results.resolve().parent)
    say(f"took {(time.monotonic() - began) / 60:.0f} minutes")
    if failures:
        sys.exit(f"left out: {'; '.join(failures)}")


def _wanted(arguments: argparse.Namespace) -> tuple[Sequence[Wish], Sequence[str], int]:
    """The cases for tools, the other measurements, and how often these are repeated."""
    chosen = arguments.cases or arguments.tools or arguments.apps or arguments.far
    if arguments.full:
        return FULL, OTHERS, 3
    if not chosen:
        return SHORT, (), 3
    cases = [case for case in CASES if case in arguments.cases]
    others = [name for name in OTHERS if name in arguments.cases]
    if not arguments.cases:
        cases = list(CASES)
    wishes = [
        Wish(apps, arguments.tools or OURS, cases, arguments.firsts, arguments.runs, arguments.far)
        for apps in (arguments.apps or [1])
        if cases
    ]
    return wishes, others, arguments.runs


def _arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in TOOLS:
                raise argparse.ArgumentTypeError(f"{name}: there are {', '.join(TOOLS)}")
        return found

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, *OTHERS, []], help="default: the short form")
    parser.add_argument("--tools", type=names, help=f"of {','.join(TOOLS)}; default: {','.join(OURS)}")
    parser.add_argument("--apps", type=numbers, help="numbers of apps, such as 1,10,30; default: 1")
    parser.add_argument("--far", action="store_true", help="with round trips of 50 ms")
    parser.add_argument("--full", action="store_true", help="everything")
    parser.add_argument("--report", action="store_true", help="measure nothing, write RESULTS.md and the plot anew")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--runs", type=int, default=5, help="runs of each short case")
    parser.add_argument("--firsts", type=int, default=1, help="runs of each first deploy")
    parser.add_argument("--patience", type=float, default=40, help="seconds to wait for a calm machine before each run")
    parser.add_argument("--prefix", default="bench", help="how the hosts' names begin")
    parser.add_argument("--remark", default="", help="a line about the circumstances, for the report")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl", help="the file of raw figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
