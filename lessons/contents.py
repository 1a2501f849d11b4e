"""What lessons there are: read from the first lines of the files l01_….py, l02_….py, and so on.

The docstring of a lesson says all that is listed: its number and title, the minutes, rows of the ledger, corrections.
Nothing is imported here but the standard library, so that lessons can be listed where marimo is not installed.
"""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
FORM = re.compile(
    r'"""Lesson (?P<number>\d+): (?P<title>[^\n]+)\.\n\n'
    r"(?P<minutes>\d+) minutes\. After: (?P<after>[^\n]+)\. Rows: (?P<rows>[^\n]+)\. Corrections: (?P<found>[^\n]+)\."
)


class Lesson(NamedTuple):
    """One lesson, as its file describes it."""

    number: int
    title: str
    minutes: int
    after: str  # what should be known before
    rows: tuple[str, ...]  # of the ledger, such as E1.1
    corrections: tuple[int, ...]  # to the source, by number
    file: Path


def described(text: str, file: Path) -> Lesson:
    r'''Read the first lines of a lesson.

    Raises ValueError where they do not have the form.

    >>> text = 'Lesson 3: Optimality and dynamic programming.\n\n45 minutes. After: lesson 2. Rows: E1.4, E1.5. '
    >>> described('"""' + text + 'Corrections: 9.', Path("l03.py"))[1:6]
    ('Optimality and dynamic programming', 45, 'lesson 2', ('E1.4', 'E1.5'), (9,))
    '''
    x = FORM.match(text)
    if x is None:
        raise ValueError(f"{file.name} begins {text[:60]!r}; 'Lesson N: Title.' and the line of minutes are expected")
    rows = tuple(re.findall(r"E\d+\.\d+", x["rows"]))
    corrections = tuple(int(n) for n in re.findall(r"\d+", x["found"]))
    return Lesson(int(x["number"]), x["title"], int(x["minutes"]), x["after"], rows, corrections, file)


def lessons(folder: Path = FOLDER, number: int | None = None) -> dict[int, Lesson]:
    """All lessons of a folder by number, in order; with a number only that one, or none.

    >>> lessons(number=1)[1].title
    'Returns'
    """
    files = folder.glob("l[0-9][0-9]_*.py" if number is None else f"l{number:02d}_*.py")
    found = [described(file.read_text(encoding="utf-8"), file) for file in sorted(files)]
    return {x.number: x for x in sorted(found)}
