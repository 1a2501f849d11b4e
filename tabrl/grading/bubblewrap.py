"""The command that runs a Python script under bubblewrap (Debian's bwrap): no network, read-only files, no tabrl.

Visible, read-only: the system's libraries, the interpreter and its standard library, NumPy, the job's folder as JOB.
Writable: /tmp, in memory, private and small. Everything else is not there: no shell, no /home, no /proc, no packages.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

JOB = "/grader"
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
LINKER = ("/etc/ld.so.cache", "/etc/alternatives")
PACKAGES = Path(np.__file__).parent.parent  # the folder that holds numpy
OWN = Path(__file__).parent.parent  # tabrl


def command(program: str, job: Path, size: int, root: bool) -> list[str]:
    """Call of bwrap with its options, up to the command that is to run inside.

    program the interpreter; job the folder shown as JOB, whose file `result` is writable; size bytes in /tmp;
    root whether the caller is root: then the command may still change its user, and must.
    """
    inside = visible(program)
    hidden = [str(x) for x in sorted(set(crowded())) if any(x.is_relative_to(y) for y in inside)]
    alone = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    drop = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [
        shutil.which("bwrap") or "bwrap", "--die-with-parent", *([*alone, *drop] if root else ["--unshare-all"]),
        "--size", str(size), "--perms", "1777", "--tmpfs", "/tmp", "--chdir", "/tmp", "--dev", "/dev",
        *shown(*inside, *map(Path, LINKER)),
        *(x for path in hidden for x in ("--tmpfs", path)),
        *shown(PACKAGES / "numpy", PACKAGES / "numpy.libs"),
        *(x for path in hidden for x in ("--remount-ro", path)),
        "--ro-bind", str(job), JOB, "--bind", str(job / "result"), f"{JOB}/result",
        "--remount-ro", "/dev", "--remount-ro", "/",
    ]  # fmt: skip


def shown(*paths: Path) -> Iterator[str]:
    """Options that show paths read-only, and let every user come to them."""
    for path in paths:
        for above in reversed(path.parents[:-1]):
            yield from ("--perms", "0755", "--dir", str(above))
        yield from ("--ro-bind-try", str(path), str(path))


def visible(program: str) -> list[Path]:
    """The interpreter, and the folders of libraries, its own included."""
    prefix = Path(sys.base_prefix)
    folders = [*map(Path, LIBRARIES), prefix / "lib", prefix / "lib64", Path(program)]
    return list(dict.fromkeys(x for x in folders if x.exists()))


def crowded() -> Iterator[Path]:
    """Folders of packages, where tabrl may be installed, and its own folder."""
    yield OWN
    yield OWN.resolve()
    for above in {Path(sys.base_prefix), Path("/usr"), Path("/usr/local")}:
        for name in ("site-packages", "dist-packages"):
            yield from above.glob(f"lib*/python*/{name}")
    for key in ("purelib", "platlib"):
        if os.path.isdir(path := Path(sysconfig.get_path(key))):
            yield path
