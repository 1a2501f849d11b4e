"""The command `tabrl lesson`: list the lessons, serve one in the browser, or write notebooks.

Lessons are marimo files. marimo runs in a process of its own, bound to 127.0.0.1, and asks nobody for updates.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabrl.cli.parts import DONE, FAILED, UsageError, bar, console
from tabrl.errors import MissingExtra

if TYPE_CHECKING:
    from tabrl.lessons.contents import Lesson

HOST = "127.0.0.1"
WAIT = 60.0  # seconds within which marimo should answer


def lesson_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl lesson`."""
    p.add_argument("which", nargs="?", metavar="N|export", help="a lesson to serve, or export (none: list them)")
    p.add_argument("--edit", action="store_true", help="edit a copy of the lesson, made in this folder")
    p.add_argument("--port", type=int, default=0, metavar="P", help="port on 127.0.0.1 (default: a free one)")
    p.add_argument("--out", default="notebooks", metavar="DIR", help="folder that export writes (default: %(default)s)")


def lesson(options: argparse.Namespace) -> int:
    """List the lessons, serve one, or export all of them."""
    from tabrl.lessons.contents import lessons

    found = lessons()
    if options.which is None:
        return listing(found.values())
    if options.which == "export":
        return export(found.values(), Path(options.out))
    if not options.which.isdecimal() or int(options.which) not in found:
        raise UsageError(
            f"lesson is {options.which!r}; a number from 1 to {max(found)}, or export, is expected"
            f"{titled(options.which, found.values())}"
        )
    require("marimo")
    file = found[int(options.which)].file
    return serve(copied(file) if options.edit else file, options.port, edit=options.edit)


def titled(word: str, lessons: "Iterable[Lesson]") -> str:
    """Name the lessons with a word in their title, or in the name of their file."""
    there = [f"{x.number} ({x.title})" for x in lessons if word.casefold() in words(x)]
    return f"; {word!r} is in the name of {', '.join(there)}" if there else "; `tabrl lesson` lists them"


def words(x: "Lesson") -> list[str]:
    """Words of a lesson's title, and of the name of its file."""
    return re.findall(r"[^\W_]+", f"{x.title} {x.file.stem}".casefold())


def listing(lessons: "Iterable[Lesson]") -> int:
    """Print one line per lesson."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("lesson")
    table.add_column("minutes", justify="right")
    table.add_column("equations")
    table.add_column("corrections")
    for x in lessons:
        table.add_row(str(x.number), x.title, str(x.minutes), ", ".join(x.rows), ", ".join(map(str, x.corrections)))
    console().print(table)
    return DONE


def require(*modules: str) -> None:
    """Refuse to go on without what the extra `lessons` installs."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, "lessons", "tabrl lesson")


def environment() -> dict[str, str]:
    """Environment of marimo: no look for a newer version, no buttons that share a notebook with a server.

    Nor a warning about what its editor leaves to be cleaned up when it is ended.
    """
    quiet = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]))
    return {**os.environ, "MARIMO_SKIP_UPDATE_CHECK": "1", "MARIMO_RESTRICT_SHARING": "true", "PYTHONWARNINGS": quiet}


def export(lessons: "Iterable[Lesson]", folder: Path) -> int:
    """Write every lesson as a Jupyter notebook, each whole or not at all.

    marimo's static HTML is not offered: it loads its programs from a server on the internet.
    """
    from tabrl.output import write

    require("marimo", "nbformat")
    folder.mkdir(parents=True, exist_ok=True)
    with bar() as progress:
        for x in progress.track(list(lessons), description="exporting"):
            command = [sys.executable, "-m", "marimo", "export", "ipynb", str(x.file), "--no-sandbox"]
            done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True)
            if done.returncode:
                print(done.stderr.decode(errors="replace")[-2000:], file=sys.stderr)
                return FAILED
            write(folder / f"{x.file.stem}.ipynb", done.stdout)
    console().print(f"wrote {folder}; the notebooks need tabrl[lessons] where they run, and their sliders stand still")
    return DONE


def copied(file: Path) -> Path:
    """Copy a lesson into the current folder, and return the copy; one that is there already is kept."""
    from tabrl.output import write

    own = Path.cwd() / file.name
    if not own.exists():
        write(own, file.read_bytes())
        console().print(f"copied the lesson to {own}", soft_wrap=True)
    return own


def free_port(port: int) -> int:
    """Return the port if it can be had, some free one for 0. Raises UsageError where it is taken or is no port."""
    try:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((HOST, port))
            return int(s.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UsageError(f"--port is {port}; a free port is expected ({error})") from None


def serve(file: Path, port: int, *, edit: bool) -> int:
    """Serve a lesson on 127.0.0.1 until Ctrl-C; the editor, which runs what is typed into it, asks for a token."""
    port, token = free_port(port), secrets.token_urlsafe(24) if edit else ""
    words = ["edit", str(file), "--token-password-file", "-"] if edit else ["run", str(file), "--no-token"]
    command = [sys.executable, "-m", "marimo", "-q", "-l", "error", *words, "--no-sandbox", "--headless"]
    with running([*command, "--host", HOST, "--port", str(port)], token) as process:
        if not answers(process, port):
            print(f"tabrl: marimo did not start (exit code {process.poll()})", file=sys.stderr)
            return FAILED
        address = f"http://{HOST}:{port}" + (f"?access_token={token}" if edit else "")
        console().print(f"{file.stem}: {address}  (Ctrl-C ends it)", soft_wrap=True)
        sys.stdout.flush()
        process.wait()
    return DONE if process.returncode <= 0 else FAILED


@contextlib.contextmanager
def running(command: list[str], words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in a session of its own, with words on its standard input; end it when the block ends.

    Ctrl-C and a polite request to end leave the block; the command is then ended, and killed if that takes long.
    """

    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert process.stdin is not None
        process.stdin.write(words.encode())
        process.stdin.close()
        with contextlib.suppress(KeyboardInterrupt):
            yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        signal.signal(signal.SIGTERM, before)


def answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until a process takes connections at a port; False if it ends before, or takes too long."""
    end = time.monotonic() + WAIT
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return True
        time.sleep(0.1)
    return False
