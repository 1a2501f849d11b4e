"""Models as .npz files: no pickle, sizes checked before allocation, writes atomic."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from tabrl.errors import ModelError
from tabrl.output import atomic
from tabrl.types import Names

FORMAT = 1
LARGEST = 32 * 2**30  # bytes; a file that declares more is refused
DENSE = {"P", "R", "gamma", "mu", "terminal", "legal", "state_names", "action_names", "format"}
CSR_PARTS = ("data", "indices", "indptr", "shape")
DAMAGE = (  # what zipfile and NumPy raise on bytes that make no sense
    zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, EOFError, OSError, RuntimeError, TypeError, ValueError,
    LookupError,
)  # fmt: skip


def save(mdp: Any, path: str | Path) -> None:
    """Write the arrays of a model; a temporary file is renamed, so a reader never sees half a model."""
    arrays: dict[str, Any] = {
        "format": np.int64(FORMAT),
        "gamma": np.float64(mdp.gamma),
        "mu": mdp.mu,
        "terminal": mdp.terminal,
        "legal": mdp.legal,
        "state_names": np.array(mdp.names.states, dtype=np.str_),
        "action_names": np.array(mdp.names.actions, dtype=np.str_),
    }
    for name in ("P", "R"):
        value = getattr(mdp, name)
        if sp.issparse(value):
            arrays |= {f"{name}_{part}": np.asarray(getattr(value, part)) for part in CSR_PARTS}
        else:
            arrays[name] = value
    with atomic(path) as stream:
        np.savez(stream, **arrays)


def load(path: str | Path) -> dict[str, Any]:
    """Read the arguments of `MDP` from a file written by `save`; raise ModelError if it is anything else."""
    file = named(path)
    with reading(path, "MDP.save") as (stream, shapes):
        check_members(shapes, file)
        return contents(stream, shapes, file)


def named(path: str | Path) -> str:
    """What messages call a file."""
    return f"file[{str(path)!r}]"


@contextmanager
def reading(path: str | Path, writer: str) -> Iterator[tuple[BinaryIO, dict[str, tuple[int, ...]]]]:
    """Open an .npz file, once the headers of its arrays make sense; gives the stream and their shapes.

    Raises ModelError, which names the function that should have written it, for bytes that make no sense, there or in
    the block that reads on.
    """
    file = named(path)
    with open(path, "rb") as stream:
        try:
            shapes = headers(stream, file, writer)
            stream.seek(0)
            yield stream, shapes
        except ModelError:
            raise
        except DAMAGE as error:
            raise ModelError(f"{file} is not readable ({error}); a file written by {writer} is expected") from None


def headers(stream: BinaryIO, file: str, writer: str) -> dict[str, tuple[int, ...]]:
    """Read only the array headers; refuse objects, and sizes that the file does not hold."""
    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(stream) as archive:
        if sum(info.file_size for info in archive.infolist()) > LARGEST:
            raise ModelError(f"{file} declares more than {LARGEST} bytes; a smaller model is expected")
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                shape, dtype, start = header(member)
            if dtype.hasobject:
                raise ModelError(f"{file} holds Python objects in {name}; plain numbers are expected")
            if int(np.prod(shape, dtype=object)) * dtype.itemsize + start != info.file_size:
                raise ModelError(f"{file} has a wrong size in {name}; a file written by {writer} is expected")
            shapes[name] = shape
    return shapes


def header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and type that an .npy member declares, and where its data start."""
    first = np.lib.format.read_magic(member) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype, member.tell()


def check_members(shapes: dict[str, tuple[int, ...]], file: str) -> None:
    """Require the arrays of a model, and no others."""
    missing = {"gamma", "mu", "terminal", "legal", "format"} - set(shapes)
    unknown = set(shapes) - DENSE - {f"{name}_{part}" for name in "PR" for part in CSR_PARTS}
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has unknown {', '.join(sorted(unknown))}"
        raise ModelError(f"{file} {what}; a file written by MDP.save is expected")


def contents(stream: BinaryIO, shapes: dict[str, tuple[int, ...]], file: str) -> dict[str, Any]:
    """Read the arrays, whose headers have been checked."""
    with np.load(stream, allow_pickle=False) as arrays:
        if int(arrays["format"]) != FORMAT:
            raise ModelError(f"{file} has format {int(arrays['format'])}; {FORMAT} is expected; update tabrl")
        out: dict[str, Any] = {"gamma": float(arrays["gamma"])}
        out |= {name: arrays[name] for name in ("mu", "terminal", "legal")}
        out["names"] = Names(
            *(tuple(map(str, arrays[k])) if k in shapes else () for k in ("state_names", "action_names"))
        )
        for name in ("P", "R"):
            out[name] = arrays[name] if name in shapes else csr(arrays, shapes, name, file)
        return out


def csr(arrays: Any, shapes: dict[str, tuple[int, ...]], name: str, file: str) -> Any:
    """Assemble a CSR matrix whose parts agree with each other."""
    parts = [f"{name}_{part}" for part in CSR_PARTS]
    if any(p not in shapes for p in parts):
        raise ModelError(f"{file} lacks {name}; a file written by MDP.save is expected")
    data, indices, indptr, shape = (arrays[p] for p in parts)
    rows, columns = (int(n) for n in shape)
    fits = (
        indptr.shape == (rows + 1,) and data.shape == indices.shape == (int(indptr[-1]),) and indptr[0] == 0
        and (np.diff(indptr) >= 0).all() and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < columns))
        and all(x.dtype.kind == "i" for x in (indices, indptr, shape))
    )  # fmt: skip
    if not fits:
        raise ModelError(f"{file} has inconsistent parts of {name}; a file written by MDP.save is expected")
    return sp.csr_array((data, indices, indptr), shape=(rows, columns))
