"""`python -m parity_tests.mutants`: change one thing in an engine, run its tests, and see whether they notice.

Every stage file of both engines, every mutant of `mutations.py`. First the harness checks of its stage; what survives
meets the stage's test file, then the tests of the stages built on it, then more examples. Results go to
build/mutants.jsonl as they come, so a run that is broken off goes on where it stopped; a whole run updates
mutation_score.json. Survivors that no test could notice are listed in equivalent_mutants.json, each with its reason.

Needs os.fork (Linux, macOS).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from parity_tests.mutations import Mutant, mutants
from parity_tests.planting import ROOT

STAGES = ("linear", "patch_embed", "class_token", "pos_embed", "layer_norm", "gelu", "dropout", "attention",
          "multi_head", "mlp", "encoder_block", "encoder", "head", "loss", "optimizer", "model")  # fmt: skip
CORE = [f"{engine}/{stage}.py" for engine in ("numpy_vit", "torch_vit") for stage in STAGES]
# A file's stages in the harness, and its test files, where they are not named after it.
CHECKS = {"attention": ("softmax", "attention"), "dropout": ("dropout", "drop_path"), "head": ("pool", "head"),
          "loss": ("cross_entropy",), "model": ("vit",), "optimizer": (), "engine": ()}  # fmt: skip
FAST_CPU = "../tests/test_fast_cpu.py"  # the path of large float32 products
OWN = {
    "linear": ["test_linear.py", FAST_CPU],
    "mlp": ["test_mlp.py", FAST_CPU],
    "model": ["test_model.py", "test_second_order.py", "test_assembled.py"],
    "gelu": ["test_gelu.py", "test_mlp.py"],
    "pos_embed": ["test_pos_embed.py", "test_model.py"],
    "engine": ["test_trajectory.py"],
}
COLUMNS = "mutants", "killed", "equivalent", "survived", "not run"
LATER = ["test_contracts.py", "test_mlp.py", "test_multi_head.py", "test_encoder_block.py", "test_encoder.py",
         "test_head.py", "test_model.py", "test_optimizer.py", "test_second_order.py"]  # fmt: skip
FEW, MANY = 25, 150  # examples a property
RESULTS = ROOT / "build" / "mutants.jsonl"
SCORE = Path(__file__).with_name("mutation_score.json")
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")


Round = tuple[Callable[[], str], float]
Results = dict[tuple[str, str], dict[str, Any]]  # by file and key


def own_tests(file: str) -> list[str]:
    stem = Path(file).stem
    tests = OWN.get(stem, [f"test_{stem}.py"])
    return [t for t in tests if (ROOT / "parity_tests" / t).exists()] or LATER


def stages_of(file: str) -> tuple[str, ...]:
    stem = Path(file).stem
    return CHECKS.get(stem, (stem,) if stem in STAGES else ())


def equivalent() -> dict[str, str]:
    """Key of a mutant -> why no test can notice it."""
    if not EQUIVALENT.exists():
        return {}
    return {entry["key"]: entry["why"] for entry in json.loads(EQUIVALENT.read_text())}


def rounds(file: str) -> list[Round]:
    """What a mutant of this file has to survive, the cheapest first: (what, seconds it may take)."""
    from parity_tests.mutant_run import pytest_check, stage_check

    own = own_tests(file)
    return [
        (stage_check(stages_of(file), FEW), 120.0),
        (pytest_check(own, FEW), 300.0),
        (pytest_check([test for test in LATER if test not in own], FEW), 900.0),
        (pytest_check(own, MANY), 900.0),
    ]


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


def share(row: dict[str, int]) -> float:
    """Killed, of the mutants that could be noticed."""
    countable = row["mutants"] - row["not run"] - row["equivalent"]
    return row["killed"] / countable if countable else 1.0


def report(table: dict[str, dict[str, int]]) -> str:
    total = {name: sum(row[name] for row in table.values()) for name in next(iter(table.values()))}
    lines = [f"{'file':30}{'mutants':>9}{'killed':>9}{'equivalent':>12}{'survived':>10}{'not run':>9}{'score':>9}"]
    for file, row in {**table, "all": total}.items():
        cells = "".join(f"{row[n]:>{w}}" for n, w in zip(row, (9, 9, 12, 10, 9), strict=True))
        lines.append(f"{file:30}{cells}{share(row):>9.1%}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m parity_tests.mutants", description=__doc__.split("\n\n")[0])
    parser.add_argument("--file", action="append", help="only this file, e.g. numpy_vit/linear.py; may be repeated")
    parser.add_argument("--sample", type=int, help="only so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--fresh", action="store_true", help="run again what earlier runs judged")
    parser.add_argument("--again", action="store_true", help="run survivors again, after the tests have changed")
    parser.add_argument("--report", action="store_true", help="run nothing: say what is known")
    options = parser.parse_args(arguments)
    files = options.file or [file for file in CORE if (ROOT / file).exists()]
    chosen = everything = [m for file in files for m in mutants(file, (ROOT / file).read_text())]
    if options.sample:
        chosen = sorted(everything, key=lambda m: random.Random(f"{options.seed} {m.key}").random())[: options.sample]
    results = {} if options.fresh or options.sample else known()
    if options.again:
        results = {where: result for where, result in results.items() if result["killed"]}
    if not options.report:
        run_all(chosen, results, keep=not options.sample)
    table = summarise(chosen, results)
    print(report(table))
    reasons = equivalent()
    alive = {where for where, result in results.items() if not result["killed"] and where[1] not in reasons}
    survivors = [m for m in chosen if (m.file, m.key) in alive]
    for m in survivors:
        print(f"survived: {m.file}:{m.line} {m.key} {m.kind}: {m.before}  ->  {m.after}")
    if not options.file and not options.sample and not any(row["not run"] for row in table.values()):
        SCORE.write_text(json.dumps(table, indent=1) + "\n")
    return 1 if survivors else 0


def run_all(chosen: list[Mutant], results: Results, keep: bool) -> None:
    """Judge what is not in `results` yet, and add it there."""
    from parity_tests import mutant_run

    todo = [m for m in chosen if (m.file, m.key) not in results]
    random.Random(0).shuffle(todo)  # what a run has done when it is broken off is then a fair sample
    if not todo:
        return
    mutant_run.warm_up()
    RESULTS.parent.mkdir(exist_ok=True)
    tests = sorted({t for m in todo for t in own_tests(m.file)})
    stages = sorted({stage for m in todo for stage in stages_of(m.file)})
    checks = [mutant_run.stage_check(stages, FEW), mutant_run.pytest_check(tests, 3)]
    for check in checks if keep else checks[:1]:  # a sample stands among the tests: they are run anyway
        sound = mutant_run.run({}, check, 1800.0)
        if sound.killed:
            raise SystemExit(f"the tests fail without a mutant: {sound.by}")
    last = len(rounds(CORE[0]))
    for number in range(last):  # round by round: most are killed in the first, soon
        alive = []
        for mutant in todo:
            check, limit = rounds(mutant.file)[number]
            module = mutant.file.removesuffix(".py").replace("/", ".")
            verdict = mutant_run.run({module: mutant.source}, check, limit)
            if not verdict.killed:
                alive.append(mutant)
            if verdict.killed or number == last - 1:
                about = {name: value for name, value in mutant._asdict().items() if name != "source"}
                results[mutant.file, mutant.key] = row = {**about, "killed": verdict.killed, "by": verdict.by}
                if keep:
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(row) + "\n")
            state = "killed" if verdict.killed else "survived" if number == last - 1 else f"survived round {number + 1}"
            print(f"{mutant.file}:{mutant.line} {state} ({verdict.by}, {verdict.seconds:.1f} s)", file=sys.stderr)
        print(f"round {number + 1} of {last}: {len(alive)} of {len(todo)} survived", file=sys.stderr)
        todo = alive


if __name__ == "__main__":
    sys.exit(main())
