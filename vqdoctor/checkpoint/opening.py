"""Opening a checkpoint: from a path to its tree, whatever lies at the path."""

from __future__ import annotations

import gc
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from vqdoctor.checkpoint import containers
from vqdoctor.checkpoint.files import CHUNK, Damaged, OpenFile, SpooledFile, guarded, printable
from vqdoctor.checkpoint.folders import explain, find_in_folder
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.strangers import HEAD, READS, describe
from vqdoctor.core.discovery import pieces

STANDARD_INPUT = "-"
_REMOTE = re.compile(r"(?:https?|hf|s3|gs|ftp)://?")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint and read its directory and structure; its tensors are read when asked for.

    Nothing that the file says is imported, called or executed, and torch is not needed. A folder is opened
    as the newest checkpoint in it, with a note; "-" is standard input.

    Raises:
        CheckpointError: if there is no checkpoint there, or it is damaged or hostile.
    """
    with guarded(path), _without_collector():
        if "\x00" in os.fspath(path):
            raise Damaged("no valid path: it contains a NUL character")
        if not os.fspath(path):  # which would be the working directory
            raise Damaged("an empty path was given", "name a checkpoint, or . for the newest one here")
        if (url := _REMOTE.match(os.fspath(path))) is not None:
            raise Damaged("an address, and only local files are read", _fetch(url[0], os.fspath(path)))
        if os.fspath(path) == STANDARD_INPUT:
            piped = SpooledFile(Path("/dev/stdin"), _standard_input())
            return container_of(piped).open(piped)
        given = Path(path)
        try:
            in_folder = stat.S_ISDIR(given.stat().st_mode)
            found, note = find_in_folder(given) if in_folder else (given, "")
            file = OpenFile(found)
        except OSError as error:
            raise explain(error, given) from error
        checkpoint = container_of(file).open(file)
        return replace(checkpoint, notes=(note, *checkpoint.notes)) if in_folder else checkpoint


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's cyclic collector away: it would look again and again at a tree that is being built."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _standard_input() -> Iterator[bytes]:
    if sys.stdin.isatty():
        raise Damaged("standard input is a terminal", "vqdoctor inspect - < CKPT")
    return iter(lambda: sys.stdin.buffer.read(CHUNK), b"")


def _fetch(scheme: str, path: str) -> str:
    """Return the command that brings a remote file here."""
    path = re.sub(":/+", "://", path, count=1)  # a Path has lost a slash
    if scheme == "hf://" or "huggingface.co/" in path:
        parts = path.removeprefix("hf://").partition("huggingface.co/")[2] or path.removeprefix("hf://")
        owner_and_name = "/".join(printable(parts).split("/")[:2])
        return f"hf download {owner_and_name} --local-dir FOLDER, and give the folder"
    tool = {"s3://": "aws s3 cp", "gs://": "gcloud storage cp"}.get(scheme)
    return f"{tool} {printable(path)} ." if tool else f"curl -LO {printable(path)}, and give the file"


def container_named(name: str) -> Container:
    """Return the kind of container that a checkpoint calls by that name."""
    return next(container for container in _containers() if container.name == name)


@cache
def _containers() -> tuple[Container, ...]:
    return pieces(containers, "CONTAINER", Container)


def container_of(file: OpenFile) -> Container:
    """Return the kind of container that a file is, from its contents.

    Raises:
        Damaged: if it is none, saying what it is instead.
    """
    head = file.pread(0, min(HEAD, file.size))
    for container in _containers():
        if container.sniff(head):
            return container
    stranger = describe(head, file.path.name)
    if stranger is not None:
        raise stranger
    for container in _containers():
        if file.path.name.lower().endswith(container.suffixes):
            return container
    raise Damaged("no kind of checkpoint that is known here", READS)
