"""Run as `python -m tests.fault_bench --models 400 --jobs 2 --out FOLDER`; run again, it resumes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fault_bench.sample import Model

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a job is one thread


def main() -> None:
    from fault_bench.sample import DEVELOPMENT, HELD, sample

    parser = argparse.ArgumentParser(prog="python -m tests.fault_bench", description=__doc__)
    parser.add_argument("--models", type=int, default=400, help="how many are drawn")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes work at once")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--part", choices=("development", "held-out", "both"), default="both")
    parser.add_argument("--first", type=int, help="only so many of each part")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="only these models")
    parser.add_argument("--decide", action="store_true", help="examine as `inspect --decide` does")
    parser.add_argument("--cures", type=int, metavar="N", help="retrain so many of the sick ones instead")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=("plan", "trial", "random"),
        help="of retraining; all by default",
    )
    parser.add_argument("--epochs", type=int, default=50, help="the budget of each retraining")
    parser.add_argument("--out", type=Path, required=True, help="the folder of checkpoints, rows and tables")
    options = parser.parse_args()
    options.out = options.out.resolve()
    parts = {"development": (DEVELOPMENT,), "held-out": (HELD,), "both": (DEVELOPMENT, HELD)}[options.part]
    models = sample(options.models, options.seed)
    if options.cures:
        from fault_bench.treat import chosen

        models = chosen(models, options.cures, options.seed)
    models = [m for part in parts for m in [m for m in models if m.part == part][: options.first]]
    if options.only:
        models = [model for model in models if model.number in options.only]
    (_treat if options.cures else _examine)(models, options)


def _examine(models: list[Model], options: argparse.Namespace) -> None:
    from fault_bench.bench import verdicts
    from fault_bench.summary import markdown, picture

    done = []
    for verdict in verdicts(models, options.out, options.jobs, decide=options.decide):
        done.append(verdict)
        said = " ".join(code for code, _, _ in verdict.row.live[:3]) or "none"
        print(
            _line(verdict.model, len(done), len(models), "MISS" if verdict.missed else "ok", said), flush=True
        )
    text = markdown(done, options.out)
    (options.out / "report.md").write_text(text)
    picture(done, options.out / "confusion.png")
    print(text)


def _treat(models: list[Model], options: argparse.Namespace) -> None:
    from fault_bench.treat import HOW, markdown, treatments

    done = []
    ways = options.ways or HOW
    for model, those in treatments(models, options.out, options.jobs, options.epochs, ways):
        done.append((model, those))
        said = ", ".join(f"{treatment.how} {treatment.result}" for treatment in those)
        print(_line(model, len(done), len(models), "", said), flush=True)
    text = markdown(done, options.out)
    (options.out / "cures.md").write_text(text)
    print(text)


def _line(model: Model, done: int, of: int, mark: str, said: str) -> str:
    setup = model.setup
    return (
        f"{done:>3}/{of} {mark:<4} {model.number:>3} {model.name:<44} {setup.implementation:<24} "
        f"{setup.data:<14} {said}"
    )


if __name__ == "__main__":
    main()
