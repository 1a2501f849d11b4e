"""Run `tabrl lesson` as a user would, and give the address that it prints."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

Process = subprocess.Popen[str]


@contextlib.contextmanager
def served(*words: str, folder: Path) -> Iterator[tuple[str, Process]]:
    """The address of a lesson, and the process that serves it until the block ends."""
    command = [sys.executable, "-m", "tabrl", "lesson", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = None
        while address is None:
            line = process.stdout.readline()
            assert line, "the command ended before it gave an address"
            address = re.search(r"http://127\.0\.0\.1:\d+\S*", line)
        yield address[0], process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()
