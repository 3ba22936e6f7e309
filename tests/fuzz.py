"""Fuzzing: mutated and forged files, batches, reports and settings, and what must never happen to any.

`make fuzz` runs 20,000 inputs; `python tests/fuzz.py --seed 3 --only 417` runs one again. An input is made
from the seed and its number alone. It may be read, or refused in one printable line. Anything else is a
failure: another exception, more than two seconds of CPU, more than 300 MB beyond its size, a name that runs
code and is not told, other tensors than torch loads, and whatever starts a program, writes a file or opens a
connection.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import dataclasses
import inspect
import io
import json
import os
import pickletools
import random
import sys
import tempfile
import time
import typing
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from bombs import BOMBS, zip_of
from forged_pickles import forged_file, text
from hostile_files import Calls, codebook_state

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.cli.main import main
from vqdoctor.core.configure import configure
from vqdoctor.core.errors import UserError
from vqdoctor.engine.batch import load_batch, require_values
from vqdoctor.engine.gate import Policy, Source, judge_all
from vqdoctor.engine.gate.files import is_report
from vqdoctor.layouts import find_quantizers
from vqdoctor.saved.training import SavedTraining

INPUTS = 20_000
WHOLE = 40
"""Every so many inputs of a file go through the whole command line as well."""
RUNS_CODE = ("os.system", "posix.system", "builtins.eval", "subprocess.Popen")
"""Names that an ordinary unpickler could be made to run by; a report must name each that it meets."""
_HIDDEN = (
    ("torch", "int8.__class__.__base__"), ("torch._utils", "_rebuild_tensor.__globals__"),
    ("torch", "FloatTensor.__init__.__globals__"), ("builtins", "eval"), ("posix", "system"),
    ("os", "system"), ("subprocess", "Popen"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one input may take: seconds of CPU, and bytes beyond its own size."""

    cpu: float = 2.0
    memory: int = 300 << 20


@dataclass(kw_only=True)
class Result:
    """What became of all inputs."""

    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0


class Watch:
    """An audit hook, switched on for a single input: it notes what must not happen."""

    _FORBIDDEN = (
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "os.remove",
        "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "ctypes.dlopen",
        "pickle.find_class", "socket.connect", "socket.bind",
    )  # fmt: skip
    _EVALUATES = ("exec", "compile", "marshal.loads")
    _OWN = ("<frozen importlib._bootstrap>", inspect.__file__, typing.__file__, dataclasses.__file__)
    """Where Python evaluates our own annotations, and imports our own modules, late."""
    _WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)  # it can never be removed again, so it is switched

    def _hook(self, event: str, arguments: Any) -> None:
        if not self.on:
            return
        if event == "open":
            mode, flags = arguments[1] or "r", arguments[2] or 0
            if isinstance(arguments[0], str) and arguments[0] == tempfile.gettempdir():
                return  # the file without a name that a compressed checkpoint is inflated into
            if (isinstance(mode, str) and set(mode) & set("wax+")) or flags & self._WRITES:
                self.seen.append(f"open {arguments[0]} {mode}")
        elif event == "ctypes.dlopen" and arguments[0] is None:
            pass  # the library that the process has already: its output is flushed
        elif event in self._FORBIDDEN or (event in self._EVALUATES and not self._is_own()):
            self.seen.append(f"{event} {arguments}"[:200])

    def _is_own(self) -> bool:
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename in self._OWN:
                return True
            frame = frame.f_back
        return False


@cache
def watch() -> Watch:
    """Return the one hook of this process."""
    return Watch()


# Inputs


@cache
def corpus() -> dict[str, bytes]:
    """Return a small sound file of every kind, by its name."""
    state = codebook_state(num_codes=4, dim=3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = torch.nn.Parameter(torch.ones(2)), state["vq.embedding"].numpy(), Calls(print, "x")
        torch.save({"model": state, "args": (1.5, {"lr": 3}, numbers)}, folder / "a.pt")
        torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
        np.savez(folder / "a.npz", z_e=np.ones((8, 3), np.float32), indices=np.arange(8) % 4)
        np.savez_compressed(folder / "deflated.npz", x=np.ones((8, 3), np.float32), y=np.arange(8))
        np.save(folder / "a.npy", np.ones((8, 3), np.float32))
        (folder / "a.safetensors").write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@cache
def sound_report() -> dict[str, Any]:
    """Return the report of a sound file."""
    with tempfile.TemporaryDirectory() as name:
        torch.save(codebook_state(), Path(name) / "a.pt")
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            main(["inspect", f"{name}/a.pt", "-f", "json"])
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


SETTINGS = b"""[tool.vqdoctor]
fail-on = "warning"
ignore = ["VQ5"]
[tool.vqdoctor.gate]
min-usage = 0.5
require = ["perplexity >= 100"]
[tool.vqdoctor.limits.VQ502]
warn_below = 0.4
"""
_NUMBERS = (
    b"\x00", b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff", b"9" * 30, b"-1", b"\x80\x02", b"]",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, -1, 0, 0.5, 1e308, -1e308, 10**400, 2**63, True, "x" * 1000, "", [], {}, [[]] * 100, "::error::x",
    "\x1b[2J",
)  # fmt: skip


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them changed, cut, doubled or put in."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if len(data) > 1:
                del data[at:]
            case 1:
                data[at:at] = rng.choice(_NUMBERS)
            case 2:
                data[at : at + rng.randrange(1, 9)] = rng.choice(_NUMBERS)
            case 3:
                data[at:at] = data[max(0, at - rng.randrange(1, 60)) : at]
            case _ if data:
                data[at % len(data)] = rng.randrange(256)
    return bytes(data)


def _a_file(rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice(list(corpus()))
    return name, mutated(corpus()[name], rng)


def _a_pickle(rng: random.Random) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(corpus()["a.pt"])) as archive:
        pickle, *_ = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        records = {n.rpartition("/")[2]: archive.read(n) for n in archive.namelist() if "/data/" in n}
    return "a.pt", zip_of(mutated(pickle, rng), records)


def _a_name(rng: random.Random) -> tuple[str, bytes]:
    module, name = rng.choice(_HIDDEN)
    spelt = f"c{module}\n{name}\n".encode() if rng.random() < 0.5 else text(module) + text(name) + b"\x93"
    call = b"(" + text("x") + b"tR" if rng.random() < 0.5 else b""
    return "a.pt", zip_of(b"\x80\x04}" + text("vq") + spelt + call + b"s.")


def _a_forgery(rng: random.Random) -> tuple[str, bytes]:
    return "forged.pt", forged_file(rng.randrange(1 << 30), rate=0.04)


def _counts(rng: random.Random) -> tuple[str, bytes]:
    state = codebook_state(num_codes=4, dim=3)
    for key in state:
        if rng.random() < 0.6:
            state[key] = state[key] * rng.choice((0.0, 1e9, 1e38, -1.0, float("nan"), 1e-40))
    return "a.safetensors", safetensors.torch.save(state)


def _a_report(rng: random.Random) -> tuple[str, bytes]:
    report = json.loads(json.dumps(sound_report()))
    for _ in range(rng.randint(1, 3)):
        node: Any = report
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = rng.choice(keys)
            if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.2:
                if rng.random() < 0.2:
                    del node[key]
                else:
                    node[key] = copy.deepcopy(rng.choice(_VALUES))  # which may be changed next
                break
            node = node[key]
    raw = json.dumps(report).encode()
    return "report.json", mutated(raw, rng) if rng.random() < 0.3 else raw


def _settings(rng: random.Random) -> tuple[str, bytes]:
    return "pyproject.toml", mutated(SETTINGS, rng)


MAKERS: tuple[Callable[[random.Random], tuple[str, bytes]], ...] = (
    _a_file, _a_file, _a_pickle, _a_pickle, _a_name, _a_forgery, _counts, _a_report, _settings,
)  # fmt: skip
RARE = 100
"""One input in so many is a bomb."""


def made(seed: int, number: int) -> tuple[str, dict[str, bytes]]:
    """Return the kind of an input and its files by name: the first is given, the others lie beside it."""
    rng = random.Random(f"{seed}:{number}")
    if number % RARE == RARE - 1:
        kinds = list(BOMBS)
        kind = kinds[number // RARE % len(kinds)]
        return f"a_bomb: {kind}", BOMBS[kind](rng)
    maker = MAKERS[number % len(MAKERS)]
    name, raw = maker(rng)
    return maker.__name__.removeprefix("_"), {name: raw}


# Outcomes


def consumed(path: Path, *, whole: bool) -> None:
    """Do with an input what the commands do with it."""
    if _is_no_checkpoint(path):
        commanded(path)
    elif path.suffix in (".npz", ".npy"):
        require_values(load_batch(path))
    else:
        checkpoint = open_checkpoint(path)
        for tensor in checkpoint.tensors.values():
            tensor.sample(100)
            tensor.read()
        checkpoint.fingerprint(checkpoint.tensors.values())
        checkpoint.verify()
        find_quantizers(checkpoint.tensors)
        _ = SavedTraining(checkpoint=checkpoint).record
    if whole and not _is_no_checkpoint(path):
        commanded(path)


def _is_no_checkpoint(path: Path) -> bool:
    return path.suffix == ".toml" or is_report(path)


def commanded(path: Path) -> None:
    """Give an input to the command that takes it."""
    if path.suffix == ".toml":
        configure(path.parent, {})
        return
    if is_report(path):
        judge_all(Source(paths=(path,)), Policy())
        return
    batch = path.suffix in (".npz", ".npy")
    ours = path.parent / "sound.pt"
    command = ["inspect", str(ours), "--data", str(path)] if batch else ["inspect", str(path)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*command, "-f", "json"])
    if code not in (0, 1, 2, 3) or "has a bug" in err.getvalue() or '"crashed"' in out.getvalue():
        raise AssertionError(f"exit code {code}: {err.getvalue()[:300]}")


def require_told(path: Path) -> None:
    """Compare the names that pickletools finds in a file with those that its report would tell."""
    checkpoint, names = open_checkpoint(path), set()
    with contextlib.suppress(zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, EOFError):
        with zipfile.ZipFile(path) as archive:
            (data,) = (archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
        strings = collections.deque[str](maxlen=2)
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                names.add(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(strings))
            elif isinstance(argument, str):
                strings.append(argument)
    hidden = {n for n in names if n in RUNS_CODE or ".__" in n} - set(checkpoint.dangerous)
    if hidden:
        raise AssertionError(f"{sorted(hidden)} can run code, and is not told")


def _values(arrays: Iterator[Any]) -> list[tuple[str, tuple[int, ...], bytes]]:
    return sorted((str(a.dtype), a.shape, np.ascontiguousarray(a).tobytes()) for a in arrays)


def require_like_torch(path: Path) -> None:
    """Compare the tensors of a file with those that torch's safe loader reads, where both read it."""
    checkpoint = open_checkpoint(path)
    if any("left out" in note for note in checkpoint.notes):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            todo = [torch.load(path, weights_only=True)]
        except Exception:
            return
    found = []
    while todo:
        node = todo.pop()
        if isinstance(node, torch.Tensor):
            whole = node.detach().resolve_neg().resolve_conj()
            found.append((whole.float() if whole.dtype is torch.bfloat16 else whole).numpy())
        elif isinstance(node, dict):
            todo += node.values()
        elif isinstance(node, list | tuple | set):
            todo += node
    if _values(iter(found)) != _values(t.read() for t in checkpoint.tensors.values()):
        raise AssertionError("torch reads other tensors")


def _peak(reset: bool = False) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def run(
    seed: int,
    numbers: Iterable[int],
    bounds: Bounds = Bounds(),
    whole: int = WHOLE,
    kinds: tuple[str, ...] = (),
) -> Result:
    """Run inputs, and return what became of them; it never raises for one of them.

    Args:
        seed: makes the inputs, with their numbers.
        numbers: which to run.
        bounds: what each may take.
        whole: every so many go through the whole command line as well.
        kinds: the only kinds to run; empty is all.
    """
    result, hook = Result(), watch()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(codebook_state(num_codes=4, dim=3), folder / "sound.pt")
        with contextlib.suppress(UserError):  # our own late imports happen here
            consumed(folder / "sound.pt", whole=True)
            for warm, raw in corpus().items():
                (folder / warm).write_bytes(raw)
                with contextlib.suppress(UserError):
                    consumed(folder / warm, whole=True)
        for number in numbers:
            kind, files = made(seed, number)
            if kinds and kind not in kinds:
                continue
            paths = [folder / name for name in files]
            for path, raw in zip(paths, files.values(), strict=True):
                path.write_bytes(raw)
            size = sum(map(len, files.values()))
            del files
            result.kinds[kind.partition(":")[0]] += 1
            run_it = commanded if kind.startswith("a_bomb") else partial(consumed, whole=number % whole == 0)
            what = _one(partial(run_it, paths[0]), size, hook, bounds, result) or _compared(kind, paths[0])
            if what:
                result.failures.append(f"{number} ({kind}, {size:,} bytes): {what}")
            for path in paths:
                path.unlink()
    return result


def _one(run_it: Callable[[], None], size: int, hook: Watch, bounds: Bounds, result: Result) -> str:
    """Return what went wrong with one input; empty where nothing did."""
    before, what = _peak(reset=True), ""
    hook.seen.clear()
    start, hook.on = time.process_time(), True
    try:
        run_it()
    except UserError as error:
        what = "" if str(error).isprintable() else f"an error with control characters: {str(error)!r}"
    except BaseException as error:
        what = f"{type(error).__name__}: {error}"
    finally:
        hook.on = False
    cpu, more = time.process_time() - start, _peak() - before - size
    result.slowest, result.largest = max(result.slowest, cpu), max(result.largest, more)
    if hook.seen:
        what = what or f"it did {hook.seen[:3]}"
    if cpu > bounds.cpu:
        what = what or f"{cpu:.1f} s of CPU"
    return what or (f"{more >> 20} MB" if more > bounds.memory else "")


def _compared(kind: str, path: Path) -> str:
    """Return how a file differs from what another reader finds in it; empty where it does not."""
    compare = {"a_forgery": require_like_torch, "a_name": require_told, "a_pickle": require_told}.get(kind)
    try:
        if compare:
            compare(path)
    except UserError:
        pass
    except AssertionError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    began = time.time()
    chosen = range(asked.inputs) if asked.only is None else range(asked.only, asked.only + 1)
    told = run(asked.seed, chosen)
    print(*told.failures, sep="\n")
    print(
        f"{len(chosen):,} inputs of seed {asked.seed}, {len(told.failures)} failures, "
        f"{time.time() - began:.0f} s; slowest {told.slowest:.2f} s of CPU, largest {told.largest >> 20} MB; "
        f"{dict(told.kinds)}"
    )
    sys.exit(bool(told.failures))
