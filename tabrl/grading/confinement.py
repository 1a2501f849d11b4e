"""What surrounds a student's process on Linux: limits, an unprivileged user, and a watcher that clears up.

uid   the unprivileged user that one submission runs as, where the grader is root; None: the user stays
leash standard input of the watcher; the grader closes it, or dies, and everything the student has started is killed

The module imports nothing of the package: a copy of it runs where student code runs.
"""

import contextlib
import importlib
import os
import select
import signal
import sys
import time
from pathlib import Path

NO_NEW_PRIVILEGES, SUBREAPER, DUMPABLE, DEATH_SIGNAL = 38, 36, 4, 1  # prctl(2)


def keep_in_reach() -> None:
    """Reach library folders that the unprivileged user could not open by name (a Python under /root) by descriptor."""

    def by_descriptor(path: str) -> str:
        up = [x for x in Path(path).parents if x.exists()]
        if os.geteuid() or not os.path.isdir(path) or all(x.stat().st_mode & 1 for x in up):
            return path
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"

    known: dict[str, str] = {path: by_descriptor(path) for path in sys.path if os.path.isdir(path)}
    sys.path[:] = [known.get(path, path) for path in sys.path]
    numpy = importlib.import_module("numpy")
    known[numpy.__path__[0]] = by_descriptor(numpy.__path__[0])
    for module in list(sys.modules.values()):
        if isinstance(folders := getattr(module, "__path__", None), list):
            folders[:] = [moved(folder, known) for folder in folders]
    sys.path_importer_cache.clear()


def moved(folder: str, known: dict[str, str]) -> str:
    """The name of a folder, below the longest known one."""
    above = max((path for path in known if f"{folder}/".startswith(f"{path}/")), key=len, default="")
    return known[above] + folder[len(above) :] if above else folder


def confine(limits: dict[str, int], uid: int | None) -> None:
    """Set the limits, and become the unprivileged user; there is no way back."""
    import resource

    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # memory short: this process goes first
    running = 0 if uid is not None else threads_of(os.getuid())
    bounds = {
        "CPU": limits["seconds"] + 1, "AS": limits["memory"], "FSIZE": limits["file"], "NOFILE": 64, "CORE": 0,
        "NPROC": running + limits["processes"], "MEMLOCK": 0, "MSGQUEUE": 0,
    }  # fmt: skip
    for name, bound in bounds.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(which, (bound, bound))
    if uid is not None:
        become(uid)
        prctl(DUMPABLE, 1)  # else /proc/self is closed to it
    prctl(NO_NEW_PRIVILEGES, 1)
    prctl(DEATH_SIGNAL, signal.SIGKILL)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (Linux)."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def threads_of(uid: int) -> int:
    """Threads that a user runs now; a limit of processes counts them all."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/task"):
        with contextlib.suppress(OSError):
            count += len(os.listdir(path)) if path.stat().st_uid == uid else 0
    return count


def watch_over_child(uid: int | None) -> None:
    """Fork: the child returns; the parent waits for its end, or for the grader to close stdin, and clears up.

    Orphans of the child, daemons included, become children of this process.
    """
    prctl(SUBREAPER, 1)
    wake, poke = os.pipe()
    os.set_blocking(poke, False)
    signal.set_wakeup_fd(poke)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(wake)
        os.close(poke)
        return
    ended: dict[int, int] = {}
    while child not in ended:
        ready = select.select([0, wake], [], [])[0]
        if 0 in ready:
            break  # the grader is gone, or has seen enough
        os.read(wake, 4096)
        reap(ended)
    clear_up(uid)
    code = os.waitstatus_to_exitcode(ended[child]) if child in ended else 0
    os._exit(code if code >= 0 else 128 - code)


def reap(ended: dict[int, int]) -> bool:
    """Note the children that have ended: process id -> status. Returns whether some are left."""
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    except ChildProcessError:
        return False
    return True


def clear_up(uid: int | None) -> None:
    """Kill all that the student has started, until no child is left (orphans are children too)."""
    until = time.monotonic() + 2
    while reap({}) and time.monotonic() < until:
        if uid is not None:
            kill_all_of(uid)
        for pid in descendants():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def kill_all_of(uid: int) -> None:
    """End every process of a user, by a process that becomes that user."""
    helper = os.fork()
    if not helper:
        become(uid)
        os.kill(-1, signal.SIGKILL)  # everything that this user may signal, except the caller
        os._exit(0)
    os.waitpid(helper, 0)


def become(uid: int) -> None:
    """Change the user for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def descendants() -> list[int]:
    """Children of this process, and theirs."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
