"""Write files whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; rename it when all is written, remove it when that fails.

    A reader never sees half a file. Raises OSError where the directory is missing or closed to writing.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(Path(folder, "x")) as stream:
    ...         _ = stream.write(b"abc")
    ...     os.listdir(folder)
    ['x']
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path is {str(path)!r}; a file in a folder that exists is expected")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Errors as in `atomic`."""
    with atomic(path) as stream:
        stream.write(content)
