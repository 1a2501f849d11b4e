"""Runs a student's file in a process of its own: python -I -S -B worker.py FOLDER.

FOLDER holds job (JSON), source (the student's file), request (frames: one call each), confinement.py and transport.py;
the answers go to FOLDER/result as frames ("value", k, what call k returned), ("why", k, what is wrong with call k)
and, when all calls are made, ("end", their number, ""). What the calls should return is not here.

The script uses the standard library and NumPy alone: the package is not importable where it runs.
"""

import contextlib
import difflib
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "submission"


class Gate:
    """First of the import finders: refuses the package."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Let every other import pass."""
        if name.partition(".")[0] == "tabrl":
            raise ImportError("tabrl is not available here: write the recursion yourself")


class Channel:
    """Where answers go; processes that the student forks write nothing."""

    def __init__(self, path: Path, transport: Any) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.owner, self.transport = os.getpid(), transport

    def send(self, kind: str, k: int, value: Any) -> None:
        """Write one frame."""
        if os.getpid() != self.owner:
            os._exit(0)
        rest = memoryview(self.transport.frame(self.transport.pack((kind, k, value))))
        while rest:
            rest = rest[os.write(self.file, rest) :]


def main(folder: Path) -> None:
    """Read the job; watch over it from outside where asked; run it."""
    job = json.loads((folder / "job").read_text())
    sys.path.append(str(folder))
    confinement = importlib.import_module("confinement")
    if job["watched"]:
        confinement.watch_over_child(job["uid"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path.append(job["packages"])
    transport = importlib.import_module("transport")  # and numpy with it
    del sys.path[-2:]
    sys.argv = [job["name"]]
    channel = Channel(folder / "result", transport)
    source = (folder / "source").read_bytes()
    requests, _ = transport.frames((folder / "request").read_bytes())
    if job["limits"]:
        confinement.keep_in_reach()
        confinement.confine(job["limits"], job["uid"])
    sys.meta_path.insert(0, Gate())
    os.write(1, transport.READY)
    serve(job["name"], source, requests, channel)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # threads and exit handlers of the student do not get another word


def serve(file: str, source: bytes, requests: list[bytes], channel: Channel) -> None:
    """Import the student's file, then make the calls in order."""
    module = ModuleType(NAME)
    module.__file__ = file
    sys.modules[NAME] = module
    try:
        Path(file).write_bytes(source)
        exec(compile(source, file, "exec"), module.__dict__)  # the student's file
    except BaseException as error:
        return channel.send("end", 0, f"on import it raises {complaint(error, file)}")
    for k, request in enumerate(requests):
        name, arguments = channel.transport.unpack(request)  # fresh copies
        try:
            function = getattr(module, name, None)
            if not callable(function):
                raise channel.transport.Refused(f"it has no function {name!r}; {offer(module, name)}")
            answer = function(*arguments)
        except channel.transport.Refused as error:
            channel.send("why", k, str(error))
        except BaseException as error:
            channel.send("why", k, f"it raises {complaint(error, file)}")
        else:
            reply(channel, k, answer)
    channel.send("end", len(requests), "")


def reply(channel: Channel, k: int, answer: Any) -> None:
    """Send an answer, or say why it cannot be sent."""
    try:
        channel.send("value", k, answer)
    except channel.transport.Refused as error:
        channel.send("why", k, f"what it returns cannot be read: {error}")
    except Exception as error:  # a class of the student, with its own idea of a length
        channel.send("why", k, f"what it returns cannot be read: {complaint(error)}")


def complaint(error: BaseException, file: str = "") -> str:
    """Name an exception, with the line of the student's file, if it is on the way."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    line, step = 0, error.__traceback__
    while step:  # a million steps where recursion was endless
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == file else line
        step = step.tb_next
    at = f" (line {line})" if line else ""
    try:
        text = str(error)[:500]
    except BaseException:
        text = "its message cannot be read"
    return f"{type(error).__name__}: {text}{at}" if text else f"{type(error).__name__}{at}"


def offer(module: ModuleType, name: str) -> str:
    """Name the functions of a module, those like `name` first."""
    there = [str(k) for k, v in vars(module).items() if callable(v) and not str(k).startswith("_")]
    close = difflib.get_close_matches(name, there) or there[:5]
    return f"did you mean {', '.join(close)}?" if close else "it defines no functions"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
