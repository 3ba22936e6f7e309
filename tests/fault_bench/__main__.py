"""Run as `python -m tests.fault_bench --models 400 --jobs 2 --out FOLDER`; run again, it resumes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a job is one thread


def main() -> None:
    from fault_bench.bench import verdicts
    from fault_bench.sample import DEVELOPMENT, HELD, sample
    from fault_bench.summary import markdown, picture

    parser = argparse.ArgumentParser(prog="python -m tests.fault_bench", description=__doc__)
    parser.add_argument("--models", type=int, default=400, help="how many are drawn")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes work at once")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--part", choices=("development", "held-out", "both"), default="both")
    parser.add_argument("--first", type=int, help="only so many of each part")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="only these models")
    parser.add_argument("--out", type=Path, required=True, help="the folder of checkpoints, rows and tables")
    options = parser.parse_args()
    parts = {"development": (DEVELOPMENT,), "held-out": (HELD,), "both": (DEVELOPMENT, HELD)}[options.part]
    models = []
    for part in parts:
        models += [m for m in sample(options.models, options.seed) if m.part == part][: options.first]
    if options.only:
        models = [model for model in models if model.number in options.only]
    done = []
    for verdict in verdicts(models, options.out.resolve(), options.jobs):
        done.append(verdict)
        model, said = verdict.model, " ".join(code for code, _, _ in verdict.row.live[:3]) or "none"
        print(
            f"{len(done):>3}/{len(models)} {'MISS' if verdict.missed else 'ok  '} {model.number:>3} "
            f"{model.name:<44} {model.setup.implementation:<24} {model.setup.data:<14} {said}",
            flush=True,
        )
    text = markdown(done, options.out.resolve())
    (options.out / "report.md").write_text(text)
    picture(done, options.out / "confusion.png")
    print(text)


if __name__ == "__main__":
    main()
