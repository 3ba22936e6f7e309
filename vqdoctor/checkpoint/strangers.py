"""Files that are not checkpoints: the name of their kind, and the next step of the user."""

from __future__ import annotations

import re

from vqdoctor.checkpoint.files import Damaged
from vqdoctor.core.files import SUFFIXES

HEAD = 4096

READS = f"vqdoctor reads what torch.save, safetensors and numpy write ({', '.join(SUFFIXES)}, .npz, .gz)"
_ORIGIN = "give the checkpoint that it was made from"
AS_ARRAYS = (
    "write its arrays by name, with those of the codebook: "
    "numpy.savez(PATH, **{'vq.codebook': codebook, 'vq.cluster_size': counts})"
)
_BY_NAME = {
    "a TensorFlow checkpoint": r"\.index$|\.data-\d{5}-of-\d{5}$|^checkpoint$",
    "a TensorFlow model": r"\.pb$",
    "a Flax checkpoint": r"\.msgpack$|^checkpoint_\d+$",
    "an ONNX model": r"\.onnx$",
}
"""Names of files that have no mark at their start, as patterns."""
JAX_FOLDER = frozenset(
    {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "saved_model.pb", "checkpoint"}
)
"""Names in the folders of Orbax and TensorFlow."""
_UNPACK = "unpack it and give the checkpoint inside"
_AGAIN = "the download failed or asked for a login: fetch the file again"
_RESAVE = 'torch.save(torch.load("old.pt", weights_only=True), "new.pt")'

_BY_START: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a git-LFS pointer, not the file that it points to",
        "git lfs pull, or download the file from its page",
    ),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, for one)", AS_ARRAYS),
    (b"GGUF", "a GGUF model (llama.cpp), whose weights are quantized", _ORIGIN),
    (b"PAR1", "a Parquet table", READS),
    (b"SQLite format 3", "an SQLite database", READS),
    (b"\x7fELF", "a program", READS),
    (b"%PDF", "a PDF document", READS),
    (b"\x89PNG", "a PNG picture", READS),
    (b"\xff\xd8\xff", "a JPEG picture", READS),
)


def describe(head: bytes, name: str = "") -> Damaged | None:
    """Return the kind of a file, as the error to raise; None if it is unknown.

    Args:
        head: its first bytes.
        name: its name, since some kinds have no mark of their own.

    Nothing is advised that would execute what a stranger's file says.
    """
    for start, kind, hint in _BY_START:
        if head.startswith(start):
            return Damaged(kind, hint)
    if head[257:262] == b"ustar":
        return Damaged("a tar archive", f"{_UNPACK}; or, written by a very old torch, {_RESAVE}")
    if head[4:8] == b"TFL3":
        return Damaged("a TensorFlow Lite model", AS_ARRAYS)
    if re.match(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)\w", head, re.DOTALL):
        return Damaged("a msgpack file (Flax, for one)", AS_ARRAYS)
    if re.match(rb"\x08[\x01-\x0f]\x12.{0,12}(pytorch|onnx|tf2onnx|skl2onnx)", head, re.DOTALL):
        return Damaged("an ONNX model, which has lost its training state", _ORIGIN)
    if re.match(rb"\x80[\x02-\x05]", head):
        return Damaged(
            "a bare pickle, not a checkpoint of torch.save",
            "load it in the project that wrote it, and torch.save its state dict",
        )
    if not head.strip(b"\x00"):
        return Damaged("filled with zero bytes", _AGAIN)
    by_name = next((kind for kind, names in _BY_NAME.items() if re.search(names, name.lower())), None)
    if by_name is not None:
        return Damaged(by_name, _ORIGIN if "ONNX" in by_name else AS_ARRAYS)
    return _describe_text(head)


def _describe_text(head: bytes) -> Damaged | None:
    try:
        # A character may be cut at the end of the head.
        text = head.decode("utf-8") if len(head) < HEAD else head[:-4].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return None
    if len(head) >= HEAD and len(text.encode()) < HEAD - 8:
        return None
    if any(ord(c) < 32 and c not in "\t\n\r\f\x1b" for c in text):
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<!--")):
        return Damaged("an HTML page, not a checkpoint", _AGAIN)
    if start.startswith("<?xml"):
        return Damaged("an XML document, not a checkpoint", _AGAIN)
    if start.startswith(("{", "[")):
        return Damaged("a JSON text, not a checkpoint", READS)
    return Damaged("a text file, not a checkpoint", READS)
