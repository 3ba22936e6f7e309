"""A live examination of a model of 98 million parameters, in its own training steps and in its own size.

CPU seconds of one thread, and the peak of the whole process, less those of importing torch. `make bench`
prints them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import large_model
import pytest
from processes import python

pytestmark = pytest.mark.bench

COSTS = """
import json, re, sys, time
{work}
peak = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]
print(json.dumps([time.process_time(), int(peak) / 1024]))
"""
STEPS = """
import time, torch
from large_model import task
model = task.model()
adam, taken = task.optimizer(model), []
for x in task.batches("train"):
    begun = time.process_time()
    losses = task.losses(model, x)
    (losses.task + losses.vq).backward()
    adam.step()
    adam.zero_grad()
    taken.append(time.process_time() - begun)
print(sorted(taken)[len(taken) // 2])
"""
INSPECT = "from vqdoctor.cli.main import main\nmain(['inspect', *sys.argv[1:], '--save', 'json=r.json'])"
MOST_STEPS = 16
"""Measured on a busy machine: 9.7 to 14.5, since a step of Adam took 1.1 to 1.6 s by the memory's speed; 18.7
before the probes shared their passes. The goal is 12. The 48 batches in eval mode are 5.5 of them."""
MOST_SIZES = 3.5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_an_examination_costs_a_few_training_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path(large_model.__file__)
    path = os.pathsep.join([str(here.parents[1]), str(here.parent)])
    options = {
        "cwd": tmp_path,
        "check": True,
        "env": {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    }
    large_model.save(tmp_path / "large.pt")
    size = (tmp_path / "large.pt").stat().st_size / 2**20

    def cost(work: str, *arguments: str) -> tuple[float, float]:
        seconds, peak = json.loads(
            python("-c", COSTS.format(work=work), *arguments, **options).stdout.splitlines()[-1]
        )
        return seconds, peak

    import_seconds, import_peak = cost("import torch")
    step = float(python("-c", STEPS, **options).stdout)
    seconds, peak = cost(INSPECT, "large.pt", "--task", f"{here}:task")
    step = (step + float(python("-c", STEPS, **options).stdout)) / 2
    steps, sizes = (seconds - import_seconds) / step, (peak - import_peak) / size
    with capsys.disabled():
        print(
            f"\n{size:.0f} MB: {seconds:.1f} s less {import_seconds:.1f}, in steps of {step:.2f}: {steps:.1f}"
        )
        print(f"peak {peak:.0f} MB less {import_peak:.0f}: {sizes:.1f} x its {size:.0f} MB")
    assert (tmp_path / "r.json").is_file()
    assert steps <= MOST_STEPS
    assert sizes <= MOST_SIZES
