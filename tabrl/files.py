"""Models as .npz files: no pickle, sizes checked before allocation, writes atomic."""

import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl.errors import ModelError
from tabrl.types import Names

FORMAT = 1
LARGEST = 32 * 2**30  # bytes; a file that declares more is refused
DENSE = {"P", "R", "gamma", "mu", "terminal", "legal", "state_names", "action_names", "format"}
CSR_PARTS = ("data", "indices", "indptr", "shape")


def save(mdp: Any, path: str | Path) -> None:
    """Write the arrays of a model; a temporary file is renamed, so a reader never sees half a model."""
    target = Path(path)
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
    handle, temporary = tempfile.mkstemp(dir=target.parent or ".", suffix=".npz.part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: str | Path) -> dict[str, Any]:
    """Read the arguments of `MDP` from a file written by `save`; raise ModelError if it is anything else."""
    shapes = headers(path)
    known = DENSE | {f"{name}_{part}" for name in "PR" for part in CSR_PARTS}
    missing = {"gamma", "mu", "terminal", "legal", "format"} - set(shapes)
    if missing or set(shapes) - known:
        odd = ", ".join(sorted(missing or set(shapes) - known))
        raise ModelError(
            f"file[{str(path)!r}] {'lacks' if missing else 'has unknown'} {odd}; a file written by MDP.save is expected"
        )
    try:
        return contents(path, shapes)
    except (zipfile.BadZipFile, zlib.error, EOFError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"file[{str(path)!r}] is damaged ({error}); a file written by MDP.save is expected") from None


def contents(path: str | Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Read the arrays, whose headers have been checked."""
    with np.load(path, allow_pickle=False) as file:
        if int(file["format"]) != FORMAT:
            raise ModelError(
                f"file[{str(path)!r}] has format {int(file['format'])}; {FORMAT} is expected; update tabrl"
            )
        out: dict[str, Any] = {"gamma": float(file["gamma"])}
        out |= {name: file[name] for name in ("mu", "terminal", "legal")}
        out["names"] = Names(
            *(tuple(map(str, file[k])) if k in shapes else () for k in ("state_names", "action_names"))
        )
        for name in ("P", "R"):
            out[name] = file[name] if name in shapes else csr(file, shapes, name, path)
        return out


def headers(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Read only the array headers; refuse objects, and sizes that the file does not hold."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > LARGEST:
                raise ModelError(f"file[{str(path)!r}] declares more than {LARGEST} bytes; a smaller model is expected")
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(stream)
                    start = stream.tell()
                if dtype.hasobject:
                    raise ModelError(f"file[{str(path)!r}] holds Python objects in {name}; plain numbers are expected")
                if int(np.prod(shape, dtype=object)) * dtype.itemsize + start != info.file_size:
                    raise ModelError(f"file[{str(path)!r}] has a wrong size in {name}; the file is damaged")
                shapes[name] = shape
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"file[{str(path)!r}] is not readable ({error}); a file written by MDP.save is expected"
        ) from None
    return shapes


def csr(file: Any, shapes: dict[str, tuple[int, ...]], name: str, path: str | Path) -> Any:
    """Assemble a CSR matrix whose parts agree with each other."""
    parts = [f"{name}_{part}" for part in CSR_PARTS]
    if any(p not in shapes for p in parts):
        raise ModelError(f"file[{str(path)!r}] lacks {name}; a file written by MDP.save is expected")
    data, indices, indptr, shape = (file[p] for p in parts)
    rows, columns = (int(n) for n in shape)
    fits = (
        indptr.shape == (rows + 1,) and data.shape == indices.shape == (int(indptr[-1]),) and indptr[0] == 0
        and (np.diff(indptr) >= 0).all() and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < columns))
    )  # fmt: skip
    if not fits:
        raise ModelError(f"file[{str(path)!r}] has inconsistent parts of {name}; the file is damaged")
    return sp.csr_array((data, indices, indptr), shape=(rows, columns))
