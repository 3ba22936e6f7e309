"""The user's own code: importing what the user names, and turning its errors into one clear line.

A name comes from the command line, from pyproject.toml or from Python, and never from a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from vqdoctor.core.errors import UserError, near

FORM = "PKG.MODULE:NAME or PATH/TO/FILE.py:NAME"

_OURS = Path(__file__).parents[1]
_CALLERS = tuple(
    f"models/{name}.py"
    for name in ("user_code", "guarded_task", "stepped_task", "usual_losses", "hf", "lookups")
)
"""Our files that call the user's code, rather than being called back from it."""
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def load_object(spec: str, option: str) -> Any:
    """Import the object that the user names.

    The file's folder, or the working directory for a module, is put first on the search path, as
    `python FILE.py` and `python -m MODULE` do, so that it can import what lies beside it.

    Args:
        spec: "pkg.module:name" or "path/to/file.py:name"; the name may have dots.
        option: what the user wrote it after, such as "--task".

    Raises:
        UserError: if it cannot be imported, with the file and line that failed.
    """
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name):
        example = f"{spec}:task" if spec.endswith(".py") else "vq_task.py:task"
        raise UserError(f"{option} {spec}: not of the form {FORM}", f"such as {option} {example}")
    with blamed(f"{option} {spec}"):
        module = _from_file(Path(place), option) if place.endswith(".py") else _from_path(place, option)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [n for n in (_own(module) if found is module else dir(found)) if not n.startswith("_")]
            defines = f"it defines {', '.join(names) or 'nothing'}" if found is module else ""
            hint = f"{near(part, names)} {defines}".strip()
            raise UserError(f"{option} {spec}: {place} has no {name!r}", hint)
        found = getattr(found, part)
    return found


def _own(module: ModuleType) -> list[str]:
    """Return the names that a module defines itself, without those that it imports."""
    return [
        name
        for name, value in vars(module).items()
        if not isinstance(value, ModuleType)
        and not (isinstance(value, type | FunctionType) and value.__module__ != module.__name__)
    ]


def code_beside(spec: str) -> dict[str, bytes]:
    """Return the code that an imported name rests on: the loaded files of its folder and those below.

    Args:
        spec: what `load_object` imported.

    Returns:
        each file's path below the folder, and its bytes.
    """
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        root = Path(place).resolve().parent
    else:
        package = sys.modules.get(place.partition(".")[0])
        root = Path(getattr(package, "__file__", None) or "/").resolve().parent
    found = {}
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "/").resolve()
        if file.is_relative_to(root) and not any(map(file.is_relative_to, (*_LIBRARIES, _OURS))):
            with contextlib.suppress(OSError):
                found[str(file.relative_to(root))] = file.read_bytes()
    return found


def _from_file(path: Path, option: str) -> ModuleType:
    if not path.is_file():
        beside = (file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else ()
        hint = near(path.name, beside) or f"{option} takes {FORM}"
        raise UserError(f"{option} {path}: there is no such file", hint)
    _search_first(path.resolve().parent)
    name = path.stem
    loaded = sys.modules.get(name)
    file = Path(getattr(loaded, "__file__", None) or "/").resolve()
    if name in sys.stdlib_module_names or (loaded and file != path.resolve()):
        name = f"_vqdoctor_user_{name}"  # train.py must not take the place of another `train`
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pickle, dataclasses and the files beside it look
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_path(name: str, option: str) -> ModuleType:
    _search_first(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # found, but something that it imports is not
        hint = near(name, (file.stem for file in Path.cwd().glob("*.py")))
        hint = hint or f"{option} takes {FORM}; modules are looked for in {Path.cwd()} and where Python looks"
        raise UserError(f"{option} {name}: there is no module {error.name!r}", hint) from None


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextlib.contextmanager
def blamed(doing: str, hint: str = "") -> Iterator[None]:
    """Turn an error in the user's code into a `UserError` that names file and line.

    An error that vqdoctor's own hooks raise while the user's code runs is not the user's: it passes.

    Args:
        doing: the step that failed, for the line.
        hint: the next step for the user.
    """
    try:
        yield
    except UserError:
        raise
    except SyntaxError as error:
        where = f"{_short(error.filename)}:{error.lineno}" if error.filename else doing
        raise UserError(f"{where}: {type(error).__name__}: {error.msg}", hint) from error
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [Path(f.filename).relative_to(_OURS).as_posix() for f in frames if _is_in(f, _OURS)]
        if ours and ours[-1].startswith(("models/", "capture/", "probes/")) and ours[-1] not in _CALLERS:
            raise  # vqdoctor was called back from the user's code
        raise UserError(f"{doing}: {said(error)}{_place(frames)}", hint) from error


def fault_of_user(error: BaseException) -> UserError | None:
    """Return an error that the user's code raised, at whatever place it was called, as one clear line.

    Returns:
        The line; None where the error came from this package, or from a library that it called.
    """
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if not (_is_in(f, *_LIBRARIES) or f.filename[:1] == "<")), None)
    if last is None or _is_in(last, _OURS):
        return None
    return UserError(f"your code fails: {said(error)}{_place(frames)}")


def said(error: BaseException) -> str:
    """Return the type of an error and the first line of what it says, if it can say anything."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # the user's own `__str__`
        lines = []
    return f"{type(error).__name__}: {lines[0].rstrip(' :') if lines else ''}".removesuffix(": ")


def _place(frames: traceback.StackSummary) -> str:
    """Return the last place in the user's own files, in parentheses; empty where there is none."""
    users = (f for f in reversed(frames) if not (_is_in(f, _OURS, *_LIBRARIES) or f.filename[:1] == "<"))
    return next((f" ({_short(f.filename)}:{f.lineno})" for f in users), "")


def _is_in(frame: traceback.FrameSummary, *folders: Path) -> bool:
    return any(Path(frame.filename).is_relative_to(folder) for folder in folders)


def _short(filename: str) -> str:
    """Return the path as the user would type it: below the working directory without its beginning."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
