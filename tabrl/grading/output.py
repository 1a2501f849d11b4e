"""What grading writes: a table for the terminal, JUnit XML, Gradescope's results.json, CSV.

The formats are those of https://github.com/testmoapp/junitxml and "Autograder Specifications" by Gradescope's manual.
"""

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from tabrl.grading.feedback import Feedback

if TYPE_CHECKING:
    from rich.table import Table

LONGEST = 20_000  # characters of a text


class Submission(NamedTuple):
    """One student's feedback."""

    student: str
    feedback: list[Feedback]

    @property
    def score(self) -> float:
        """Exercises passed."""
        return sum(x.score for x in self.feedback)


def clean(text: str) -> str:
    r"""Replace what a terminal or a file format might take for more than text; keep line ends.

    >>> clean("a\x1b[31mb\nc")
    'a?[31mb\nc'
    """
    return "".join(x if x == "\n" or not unicodedata.category(x).startswith("C") else "?" for x in text[:LONGEST])


def junit(submissions: Sequence[Submission]) -> bytes:
    """JUnit XML: a suite for each student, a test case for each exercise."""
    top = ElementTree.Element("testsuites", name="tabrl exercises")
    for x in submissions:
        wrong = sum(not y.passed for y in x.feedback)
        suite = ElementTree.SubElement(
            top, "testsuite", name=clean(x.student), tests=str(len(x.feedback)), failures=str(wrong), errors="0"
        )
        for y in x.feedback:
            case = ElementTree.SubElement(suite, "testcase", classname=clean(x.student), name=y.exercise)
            if not y.passed:
                failure = ElementTree.SubElement(case, "failure", message=clean(y.reason), type="wrong")
                failure.text = clean(y.text)
    ElementTree.indent(top)
    text: bytes = ElementTree.tostring(top, "utf-8", xml_declaration=True)
    return text + b"\n"


def gradescope(submission: Submission, points: float = 1.0) -> str:
    """Gradescope's results.json for one student: `points` for each exercise that passed."""
    tests = [
        {
            "name": y.exercise,
            "number": str(k),
            "score": points * y.score,
            "max_score": points,
            "status": "passed" if y.passed else "failed",
            "output": clean(y.text),
            "output_format": "text",
            "visibility": "visible",
        }
        for k, y in enumerate(submission.feedback, 1)
    ]
    results: dict[str, Any] = {"visibility": "visible", "stdout_visibility": "hidden", "tests": tests}
    if not tests:  # without tests Gradescope wants a score
        results |= {"score": 0.0, "output": "The submission has no function of an exercise."}
    return json.dumps(results, indent=2) + "\n"


def table_of_values(submissions: Sequence[Submission]) -> str:
    """CSV: student, exercise, score, the known mistake, the reason. No cell starts a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["student", "exercise", "score", "cases right", "cases", "mistake", "reason"])
    for x in submissions:
        for y in x.feedback:
            cells = [x.student, y.exercise, f"{y.score:g}", y.right, y.cases, y.mistake, y.reason]
            writer.writerow([tame(clean(str(cell))) for cell in cells])
    return stream.getvalue()


def tame(cell: str) -> str:
    """Keep a spreadsheet from taking a cell for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell


def table(submissions: Sequence[Submission], names: Sequence[str]) -> "Table":
    """One row for each student, one column for each exercise, and the first thing to say."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False)
    found.add_column("student", overflow="fold")
    for name in names:
        found.add_column(name, no_wrap=True)
    found.add_column("score", justify="right")
    found.add_column("", overflow="ellipsis", no_wrap=True)
    for x in submissions:
        passed = {y.exercise: y.passed for y in x.feedback}
        marks = [Text("pass", style="green") if passed.get(name) else Text("no", style="red") for name in names]
        said = next((f"{y.exercise}: {y.reason}" for y in x.feedback if not y.passed), "")
        found.add_row(clean(x.student), *marks, f"{x.score:g}/{len(x.feedback)}", Text(clean(said)))
    return found


def common(submissions: Sequence[Submission], most: int = 5) -> list[str]:
    """The mistakes that were named most often, one line each."""
    counts = Counter((y.exercise, y.mistake) for x in submissions for y in x.feedback if y.mistake)
    return [f"{n} x {name}: {mistake}" for (name, mistake), n in counts.most_common(most)]
