"""Write files whole or not at all."""

import os
import tempfile
from pathlib import Path


def write(path: str | Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it: a reader never sees half a file.

    Raises OSError where the directory is missing or closed to writing; then nothing is left behind.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "x"), b"abc")
    ...     os.listdir(folder)
    ['x']
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
