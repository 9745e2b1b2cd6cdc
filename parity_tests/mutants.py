"""`python -m parity_tests.mutants`: change one thing in an engine, run its tests, and see whether they notice.

Every file of the NumPy engine and every stage of the PyTorch engine, every mutant of `mutations.py`, against the tests
that run the changed line, those of its own stage first (`mutant_tests.py`). Results go to build/mutants.jsonl as they
come, so a run that is broken off goes on where it stopped; a run over all files, or --report, updates
mutation_score.json. Survivors that no test could notice are listed in equivalent_mutants.json, each with its reason.

Needs os.fork (Linux, macOS).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parity_tests.mutant_run import warm_up
from parity_tests.mutant_tests import ROUNDS, Items, Tests, collected, sources, traits
from parity_tests.mutations import Mutant, mutants
from parity_tests.planting import ROOT

COLUMNS = "mutants", "killed", "equivalent", "survived", "not run"
CHUNK = 200
RESULTS = ROOT / "build" / "mutants.jsonl"
SCORE = Path(__file__).with_name("mutation_score.json")
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")

Results = dict[tuple[str, str], dict[str, Any]]  # by file and key


def equivalent() -> dict[str, str]:
    """Key of a mutant -> why no test can notice it."""
    return {entry["key"]: entry["why"] for entry in json.loads(EQUIVALENT.read_text())}


def known(path: Path = RESULTS) -> Results:
    """(file, key) -> result, from earlier runs; a line cut short by a crash is left out."""
    rows: Results = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["file"], row["key"]] = row
    return rows


def summarise(all_mutants: Iterable[Mutant], results: Results) -> dict[str, dict[str, int]]:
    """Per file: mutants, killed, equivalent (survived, with a reason), survived (without), not run."""
    table: dict[str, dict[str, int]] = {}
    reasons = equivalent()
    for mutant in all_mutants:
        row = table.setdefault(mutant.file, dict.fromkeys(COLUMNS, 0))
        result = results.get((mutant.file, mutant.key))
        row["mutants"] += 1
        if result is None:
            row["not run"] += 1
        elif result["killed"]:
            row["killed"] += 1
        else:
            row["equivalent" if mutant.key in reasons else "survived"] += 1
    return table


def survivors(all_mutants: Iterable[Mutant], results: Results) -> list[Mutant]:
    """Those that survived without being listed as equivalent."""
    reasons = equivalent()
    lives = {where for where, result in results.items() if not result["killed"] and where[1] not in reasons}
    return [m for m in all_mutants if (m.file, m.key) in lives]


def share(row: dict[str, int]) -> str:
    """Killed, of the mutants that were run and could be noticed."""
    countable = row["mutants"] - row["not run"] - row["equivalent"]
    return f"{row['killed'] / countable:.1%}" if countable else "-"


def report(table: dict[str, dict[str, int]]) -> str:
    total = {name: sum(row[name] for row in table.values()) for name in next(iter(table.values()))}
    lines = [f"{'file':30}{'mutants':>9}{'killed':>9}{'equivalent':>12}{'survived':>10}{'not run':>9}{'score':>9}"]
    for file, row in {**table, "all": total}.items():
        cells = "".join(f"{row[n]:>{w}}" for n, w in zip(row, (9, 9, 12, 10, 9), strict=True))
        lines.append(f"{file:30}{cells}{share(row):>9}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m parity_tests.mutants", description=__doc__.split("\n\n")[0])
    parser.add_argument("--file", action="append", help="only this file, e.g. numpy_vit/linear.py; may be repeated")
    parser.add_argument("--sample", type=int, help="only so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--fresh", action="store_true", help="run again what earlier runs judged")
    parser.add_argument("--again", action="store_true", help="run the known survivors again, before the others")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--report", action="store_true", help="run nothing: say what is known")
    options = parser.parse_args(arguments)
    files = options.file or sources()
    chosen = [m for file in files for m in mutants(file, (ROOT / file).read_text())]
    if options.sample:
        reasons = equivalent()
        chosen = [m for m in chosen if m.key not in reasons]
        chosen = sorted(chosen, key=lambda m: random.Random(f"{options.seed} {m.key}").random())[: options.sample]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.jsonl") if options.sample else RESULTS
        done = {} if options.fresh else known(path)
        todo = [m for m in chosen if (m.file, m.key) not in done]
        random.Random(0).shuffle(todo)  # what a run has done when it is broken off is then a fair sample
        if options.again:
            todo = survivors(chosen, done) + todo
        if not options.report:
            run_all(todo, path, options.workers, all_tests=bool(options.sample))
        results = known(path)
    table, alive = summarise(chosen, results), survivors(chosen, results)
    print(report(table))
    for m in alive:
        print(f"survived: {m.file}:{m.line} {m.key} {m.kind}: {m.before}  ->  {m.after}")
    if not options.file and not options.sample:
        SCORE.write_text(json.dumps(table, indent=1) + "\n")
    return 1 if alive else 0


def run_all(todo: list[Mutant], path: Path, workers: int, all_tests: bool) -> None:
    """Judge these mutants, and add what comes out to the file."""

    def work(items: Items) -> None:
        tests = Tests(items, {} if all_tests else traits(items, say))
        tests.kills.update(result["by"] for result in known(path).values())
        children = []
        for i in range(1, workers):
            if not (child := os.fork()):
                judge(todo[i::workers], tests, path)
                os._exit(0)
            children.append(child)
        judge(todo[::workers], tests, path)
        for child in children:
            os.waitpid(child, 0)

    path.parent.mkdir(exist_ok=True)
    if todo:
        warm_up()
        collected(work)


def judge(todo: list[Mutant], tests: Tests, path: Path) -> None:
    """CHUNK by CHUNK, and those round by round: most are killed in the first, and who killed them is then known."""
    for start in range(0, len(todo), CHUNK):
        alive = todo[start : start + CHUNK]
        for number in range(ROUNDS):
            said = f"{start} of {len(todo)} done, round {number + 1} of {ROUNDS}"
            alive = [mutant for mutant in alive if not _killed(mutant, number, tests, path, said)]


def _killed(mutant: Mutant, number: int, tests: Tests, path: Path, said: str) -> bool:
    verdict = tests.judge(mutant, number)
    if verdict.killed or number == ROUNDS - 1:
        row = {name: value for name, value in mutant._asdict().items() if name != "source"}
        with path.open("a") as file:  # a line at once: several processes may write
            file.write(json.dumps({**row, "killed": verdict.killed, "by": verdict.by}) + "\n")
    state = "killed" if verdict.killed else "SURVIVED"
    say(f"{said}: {mutant.file}:{mutant.line} {state} ({verdict.by}, {verdict.seconds:.1f} s) {mutant.after}")
    return verdict.killed


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
