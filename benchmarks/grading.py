"""Grade a class of 100 submissions with three exercises each, and count what was said.

    python benchmarks/grading.py [students] [jobs]

Each student hands in three files, so each has three processes. One in five forgets gamma, one loops for ever, one
leaves Python, one asks for 80 GB on import; the marks of all others are checked.
"""

import sys
import tempfile
import time
from pathlib import Path

from tabrl.grading import classroom, output, sandbox
from tabrl.grading.exercises import find

SOLUTIONS = Path(__file__).parents[1] / "tests" / "solutions"
SOURCES = {name: SOLUTIONS / f"loops_{part}.py" for name, part in (("td0", "prediction"), ("gae", "gradients"))}
FORGETS = "import numpy as np\n\n\ndef returns(r, discount):\n    return np.cumsum(r[::-1])[::-1]\n"
STRANGE = {
    51: "def returns(r, discount):\n    while True:\n        pass\n",
    52: "import os\n\n\ndef returns(r, discount):\n    os._exit(0)\n",
    53: "x = bytearray(80 * 10**9)\n\n\ndef returns(r, discount):\n    return r\n",
}


def hand_in(folder: Path, students: int) -> None:
    """Write the submissions."""
    right = (SOLUTIONS / "loops_prediction.py").read_text(encoding="utf-8")
    for k in range(students):
        home = folder / f"student{k:03}"
        home.mkdir()
        first = STRANGE.get(k, FORGETS if k % 5 == 0 else right)
        (home / "a_returns.py").write_text(first, encoding="utf-8")
        for name, source in SOURCES.items():
            (home / f"{name}.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")


def main(students: int = 100, jobs: int = 2) -> int:
    """Grade, print the time, and say whether the marks are right."""
    with tempfile.TemporaryDirectory() as folder:
        hand_in(Path(folder), students)
        exercises = [find(name) for name in ("returns", *SOURCES)]
        before = time.perf_counter()
        found = classroom.grade(classroom.students(folder), exercises, jobs=jobs)
        seconds = time.perf_counter() - before
    expected = [2.0 if k % 5 == 0 or k in STRANGE else 3.0 for k in range(students)]
    right = [x.score for x in found] == expected
    print(f"{students} students, 3 exercises, {jobs} at a time: {seconds:.0f} s ({sandbox.isolation()})")
    print(f"marks as expected: {right}")
    for line in output.common(found):
        print(line)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
