"""Lessons: their list, their form, the numbers that they state by hand, and that each of them runs."""

import importlib.util
import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tabrl import bellman, chain, dp, rational, td_limits, visits
from tabrl.grading.exercises import EXERCISES
from tabrl.lessons.contents import Lesson, described, lessons
from tabrl.lessons.machine import BROKEN, GOOD, REPAIR, RUN, WORN, machine, repairing

ROOT = Path(__file__).resolve().parent.parent
LEDGER = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
LESSONS = lessons()
ALL = [pytest.param(x, id=x.file.stem) for x in LESSONS.values()]
WITHOUT_TORCH = 16  # the last lesson that must not need it
LIMIT = 20.0  # seconds on two cores
PARTS = ["head", "exercise", "questions", "sources"]  # in this order
needs_marimo = pytest.mark.skipif(
    importlib.util.find_spec("marimo") is None, reason='marimo is not installed; run: pip install "tabrl[lessons]"'
)


TEACHES = {row: cells.split("|")[-2] for row, cells in re.findall(r"^\| (E\d\.\d+) \|(.*\|)$", LEDGER, re.MULTILINE)}


def test_there_is_a_lesson_for_every_chapter() -> None:
    assert list(LESSONS) == list(range(1, 22))
    for number, x in LESSONS.items():
        assert x.file.name.startswith(f"l{number:02d}_")
        assert 10 <= x.minutes <= 90
    assert len(list((ROOT / "lessons").glob("l[0-9]*.py"))) == len(LESSONS)


def test_lessons_and_ledger_name_each_other() -> None:
    """In the order of the ledger, but for lesson 8, which comes back to optimal values."""
    rows = list(TEACHES)
    assert len(rows) == 29
    for x in LESSONS.values():
        assert x.rows
        for row in x.rows:
            assert f"`tabrl.lessons.{x.file.stem}`" in TEACHES[row], (x.file.name, row)
    assert {row for x in LESSONS.values() for row in x.rows} == set(rows)
    first = [rows.index(x.rows[0]) for x in LESSONS.values() if x.number != 8]
    assert first == sorted(first)


def test_every_correction_is_shown_in_one_lesson() -> None:
    known = list(map(int, re.findall(r"^\| (\d+) \| ", LEDGER, re.MULTILINE)))
    assert sorted(n for x in LESSONS.values() for n in x.corrections) == known == list(range(1, 17))


def test_every_lesson_has_an_exercise() -> None:
    assert set(LESSONS) == {x.lesson for x in EXERCISES.values()}


def test_a_lesson_without_the_form_is_named() -> None:
    with pytest.raises(ValueError, match=r"l03_x\.py begins 'import marimo'"):
        described("import marimo", Path("l03_x.py"))


PROGRAM = """
import json, resource, runpy, socket, sys

def refuse(*_):
    raise OSError("a lesson opened a connection")

socket.socket.connect = refuse
said = []

def heard(name, function):
    def call(*arguments, **keywords):
        said.append(name)
        return function(*arguments, **keywords)
    return call

from tabrl.lessons import parts
for name in ("head", "equation", "predict", "verdict", "picture", "exercise", "questions", "sources"):
    setattr(parts, name, heard(name, getattr(parts, name)))
runpy.run_path(sys.argv[1], run_name="__main__")
cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
print(json.dumps({"said": said, "modules": sorted(sys.modules), "cpu": cpu}))
"""


@needs_marimo
@pytest.mark.parametrize("lesson", ALL)
def test_a_lesson_runs_as_a_script(lesson: Lesson, tmp_path: Path) -> None:
    """In an empty folder and without connections; no torch up to lesson 16; all parts are there, in order."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(lesson.file)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cpu"] < 2 * LIMIT
    assert lesson.number > WITHOUT_TORCH or "torch" not in found["modules"]
    assert not list(tmp_path.iterdir())
    said = list(dict.fromkeys(found["said"]))
    assert [x for x in said if x in PARTS] == PARTS
    assert {"equation", "predict", "verdict", "picture"} <= set(said)


@needs_marimo
def test_marimo_finds_nothing_to_complain_about() -> None:
    files = [str(x.file) for x in LESSONS.values()]
    done = subprocess.run(
        [sys.executable, "-m", "marimo", "check", "--strict", *files], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@needs_marimo
@pytest.mark.parametrize("lesson", ALL)
def test_a_lesson_names_its_corrections_and_asks_three_questions(lesson: Lesson) -> None:
    text = lesson.file.read_text(encoding="utf-8")
    assert tuple(sorted(map(int, re.findall(r"parts\.correction\(\s*(\d+)", text)))) == lesson.corrections
    assert len(re.findall(r"^\s+### ", text, re.MULTILINE)) >= 3
    assert "mo.ui.radio(" in text and re.search(r"mo\.ui\.(slider|dropdown|number)\(", text)
    assert "pyplot" not in text


HALF = Fraction(1, 2)


def exact_values(gamma: Fraction, x: float) -> list[Fraction]:
    """Values of the machine in fractions, for a discount that is one."""
    t = rational.tables(machine())._replace(gamma=gamma)
    return rational.policy_values(t, repairing(x))


def test_the_machine_by_hand() -> None:
    """Lessons 1 to 3: 28/9 and 4/3 at 1/2, 6 and 2 at 1, 40/7 and 25/7 at 4/5, a tie at exactly 2/3."""
    assert exact_values(HALF, 0)[:2] == [Fraction(28, 9), Fraction(4, 3)]
    assert exact_values(Fraction(1), 0)[:2] == [6, 2]
    assert exact_values(Fraction(4, 5), 0)[:2] == [Fraction(40, 9), Fraction(5, 3)]
    assert exact_values(Fraction(4, 5), 1)[:2] == [Fraction(40, 7), Fraction(25, 7)]
    tie = Fraction(2, 3)
    values = [exact_values(tie, x) for x in (0, 0.25, 1)]
    assert values[0] == values[1] == values[2] == [Fraction(15, 4), Fraction(3, 2), 0]
    for gamma, best in ((tie - Fraction(1, 1000), RUN), (tie + Fraction(1, 1000), REPAIR)):
        t = rational.tables(machine())._replace(gamma=gamma)
        Q = rational.action_values(t, rational.best_values(t))[WORN]
        assert Q[best] > Q[1 - best]


def test_the_rounds_of_lesson_3() -> None:
    rounds = list(dp.policy_iteration(machine(0.8), pi=np.eye(2)[[RUN, RUN, RUN]]))
    assert [x.changed for x in rounds] == [1, 0]
    assert bellman.q_from_v(machine(0.8), rounds[0].V)[WORN, REPAIR] == pytest.approx(23 / 9)
    assert bellman.q_from_v(machine(0.8), rounds[1].V)[WORN, RUN] == pytest.approx(17 / 7)


def test_sweeps_of_lesson_2() -> None:
    """About 65 sweeps for three digits at 0.9 if always repaired; far fewer if it breaks."""
    counts = []
    for x in (1.0, 0.0):
        mdp, pi, V = machine(0.9), repairing(x), np.zeros(3)
        exact = chain.evaluate(chain.induce(mdp, pi))
        k, goal = 0, abs(exact).max() / 1000
        while abs(V - exact).max() > goal:
            V, k = bellman.expectation(mdp, pi, V), k + 1
        counts.append(k)
    assert 60 <= counts[0] <= 70 and counts[1] < 15


def test_visits_of_lesson_4() -> None:
    mdp, pi = machine(1.0), repairing(0)
    assert visits.first_visit(mdp, pi, GOOD, 1).variance == pytest.approx(10)
    assert visits.every_visit(mdp, pi, GOOD, 1).bias == pytest.approx(-1)


def test_the_bias_of_lesson_5_is_twice_the_step_size() -> None:
    for alpha in (0.01, 0.2, 0.4, 0.8):
        mean = td_limits.trajectory_limit(machine(1.0), repairing(0), alpha=alpha).mean
        assert mean == pytest.approx([6 - 2 * alpha, 2 - alpha / 2, 0])


def test_the_machine_is_what_the_text_says() -> None:
    mdp = machine()
    assert mdp.legal[:2].tolist() == [[True, False], [True, True]] and mdp.terminal[BROKEN]
    assert mdp.P[GOOD, RUN].tolist() == [0.5, 0.5, 0] and mdp.P[WORN, RUN].tolist() == [0, 0.5, 0.5]
    assert mdp.P[WORN, REPAIR].tolist() == [1, 0, 0] and mdp.r[WORN].tolist() == [1, -1]


@needs_marimo
def test_parts() -> None:
    from tabrl.lessons import parts
    from tabrl.plots import new_figure

    class Guess:
        value: str | None = None

    guess = Guess()
    assert "Choose an answer" in parts.verdict(guess, "b", "why").text
    guess.value = "a"
    assert "Not so: b." in parts.verdict(guess, "b", "why").text
    guess.value = "b"
    assert "As you said." in parts.verdict(guess, "b", "why").text
    shown = parts.picture(new_figure(1, 1), 'a "picture" <of it>').text
    assert shown.startswith('<img src="data:image/png;base64,iVBOR')
    assert 'alt="a &quot;picture&quot; &lt;of it&gt;"' in shown
    assert parts.folded("### One?\n\nYes.\n\n### Two?\nNo.") == {"One?": "Yes.", "Two?": "No."}
    listed = parts.listing(bellman.q_from_v)
    assert "type: ignore" not in listed and "Action values of one step" not in listed
    assert "return mdp.r + mdp.gamma * (mdp.rows @ V)" in listed
