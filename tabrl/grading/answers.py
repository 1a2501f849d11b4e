"""What came back through the channel: frames that are checked one by one, and never taken for more than answers.

ending  None: the process did not say that it was done; "": all calls were made; else why none could be
"""

import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

from tabrl.grading.process import CONTROLS, Limits, Outcome
from tabrl.grading.transport import Refused, unpack

LONGEST = 1000  # characters of a reason
CHANNEL = "it writes into the grader's channel; only what the functions return is read"
CAUSES = {
    "SIGKILL": "memory or processor time has run out, or it killed itself",
    "SIGSEGV": "endless recursion, or memory that is not its own",
    "SIGXCPU": "processor time has run out",
}


class Answers(NamedTuple):
    """Answers to the first calls."""

    values: list[Any | None]  # None where the call failed
    reasons: list[str]
    ending: str | None


def parse(messages: Sequence[bytes], left: int, count: int) -> Answers:
    """Read the frames of a process that was to make `count` calls.

    left: bytes after the last whole frame, 0 where the process may have been cut off while it wrote.
    Frames out of order, after the end, or of another kind mean that the student's code wrote them: nothing counts then.

    >>> from tabrl.grading.transport import pack
    >>> parse([pack(x) for x in (("value", 0, 0.5), ("end", 1, ""))], 0, 1)
    Answers(values=[0.5], reasons=[''], ending='')
    >>> parse([pack(("mark", 0, 10))], 0, 1).ending == CHANNEL
    True
    """
    found = Answers([], [], None)
    try:
        for message in messages:
            found = extended(found, read(message), count)
    except Refused:
        return Answers([], [], CHANNEL)
    return Answers([], [], CHANNEL) if left else found


def read(message: bytes) -> tuple[str, int, Any]:
    """One frame: kind, number of the call, answer or reason."""
    content = unpack(message)
    if not isinstance(content, tuple) or len(content) != 3:
        raise Refused("a frame is not a triple")
    kind, k, body = content
    if kind not in ("value", "why", "end") or (kind != "value" and not isinstance(body, str)):
        raise Refused("a frame is of no known kind")
    return kind, k, body


def extended(found: Answers, frame: tuple[str, int, Any], count: int) -> Answers:
    """Answers with one more frame."""
    kind, k, body = frame
    known = len(found.values)
    if found.ending is not None or k != known or known + (kind != "end") > count:
        raise Refused("a frame is out of place")
    if kind == "end":
        if not body and known < count:
            raise Refused("an end before its time")
        return found._replace(ending=clean(body))
    found.values.append(body if kind == "value" else None)
    found.reasons.append(clean(body) or "it fails" if kind == "why" else "")
    return found


def clean(text: str) -> str:
    """Text from the student's process on one line, without control characters, cut."""
    return " ".join(text[:LONGEST].split()).translate(CONTROLS)


def why(outcome: Outcome, limits: Limits) -> str:
    """Why a process ended before it was done."""
    if outcome.loud:
        return f"it prints more than {limits.output_bytes} bytes"
    if outcome.late:
        return f"it takes more than {limits.seconds:g} s"
    if outcome.code > 128:
        try:
            name = signal.Signals(outcome.code - 128).name
        except ValueError:
            name = str(outcome.code - 128)
        cause = f" ({CAUSES[name]})" if name in CAUSES else ""
        return f"it is ended by signal {name}{cause}"
    return f"it leaves Python before all calls are made (exit code {outcome.code})"
