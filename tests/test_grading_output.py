"""What grading writes, a class of submissions, and `tabrl exercise`."""

import ast
import csv
import io
import json
import os
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tabrl.cli import main
from tabrl.cli.exercise import ALOUD
from tabrl.grading import classroom, output, sandbox
from tabrl.grading.exercises import EXERCISES, find, stub
from tabrl.grading.feedback import Feedback
from tabrl.grading.output import Submission

A = Any
HEAD = "import numpy as np\n"
RETURNS = (
    HEAD
    + "def returns(r, discount):\n    G = 0 * r\n    for t in reversed(range(len(r))):\n"
    + ("        G[t] = r[t] + (discount[t] * G[t + 1] if t + 1 < len(r) else 0)\n    return G\n")
)
TD0 = HEAD + (
    "def td0(V, s, r, discount, alpha):\n    for t in range(len(r)):\n"
    "        V[s[t]] += alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]])\n    return V\n"
)
FORGETS = RETURNS.replace("discount[t] * ", "")


def passed(name: str) -> Feedback:
    return Feedback(name, True, "", "", f"{name}: passed, 7 of 7 cases.", 7, 7)


def failed(name: str, mistake: str = "you forget gamma", text: str = "not yet") -> Feedback:
    return Feedback(name, False, mistake, mistake, text, 7, 3)


NASTY = "\x1b[2J\x00<b>&]]>\u202eevil\ud800"
GRADED = [
    Submission("ada", [passed("returns"), passed("td0")]),
    Submission("=cmd()", [failed("returns"), failed("td0", NASTY, NASTY)]),
    Submission("eve", [failed("returns"), passed("td0")]),
]


# files


def test_junit_has_a_suite_for_each_student() -> None:
    top = ElementTree.fromstring(output.junit(GRADED))
    suites = list(top)
    assert [x.get("name") for x in suites] == ["ada", "=cmd()", "eve"]
    assert [(x.get("tests"), x.get("failures"), x.get("errors")) for x in suites] == [
        ("2", "0", "0"), ("2", "2", "0"), ("2", "1", "0"),
    ]  # fmt: skip
    assert [x.get("name") for x in suites[0]] == ["returns", "td0"]
    (failure,) = suites[1][0]
    assert (failure.tag, failure.get("message"), failure.text) == ("failure", "you forget gamma", "not yet")
    assert suites[1][1][0].text == "?[2J?<b>&]]>?evil?"


def test_gradescope_results() -> None:
    found = json.loads(output.gradescope(GRADED[2], points=2.0))
    assert [(x["name"], x["score"], x["max_score"], x["status"]) for x in found["tests"]] == [
        ("returns", 0.0, 2.0, "failed"), ("td0", 2.0, 2.0, "passed"),
    ]  # fmt: skip
    assert {x["visibility"] for x in found["tests"]} == {"visible"}
    assert found["tests"][0]["output"] == "not yet"
    assert found["stdout_visibility"] == "hidden"
    assert "score" not in found
    assert json.loads(output.gradescope(Submission("nobody", [])))["score"] == 0.0
    assert "\x1b" not in output.gradescope(GRADED[1])


def test_csv_is_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(output.table_of_values(GRADED))))
    assert [(x["student"], x["exercise"], x["score"]) for x in rows[:3]] == [
        ("ada", "returns", "1"), ("ada", "td0", "1"), ("'=cmd()", "returns", "0"),
    ]  # fmt: skip
    assert rows[2]["mistake"] == "you forget gamma"
    assert (rows[2]["cases right"], rows[2]["cases"]) == ("3", "7")


def test_table_and_what_is_common() -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(output.table(GRADED, ["returns", "td0"]))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines[1] == ["ada", "pass", "pass", "2/2"]
    assert lines[2][:4] == ["=cmd()", "no", "no", "0/2"]
    assert lines[3] == ["eve", "no", "pass", "1/2", "returns:", "you", "forget", "gamma"]
    assert output.common(GRADED)[0] == "2 x returns: you forget gamma"
    assert GRADED[2].score == 1.0


def test_clean_text_is_cut() -> None:
    assert len(output.clean("x" * 10**6)) == output.LONGEST


# a class


def handed_in(folder: Path) -> Path:
    """Seven students: right, wrong, endless, no Python, in pieces, misnamed, with a link."""
    files = {
        "ada/work.py": RETURNS + TD0,
        "bob/a/returns.py": FORGETS,
        "bob/b/td0.py": TD0,
        "cyd.py": RETURNS + "while True:\n    pass\n",
        "dan/work.py": "def returns(r, discount):\n",
        "eve/1.py": RETURNS,
        "eve/2.py": FORGETS + TD0.replace("+=", "-="),
        "fay/work.py": RETURNS.replace("def returns", "def return_s"),
        ".git/x.py": RETURNS,
        "gus/.venv/x.py": RETURNS,
        "gus/__pycache__/x.py": RETURNS,
        "notes.txt": "nothing",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "gus" / "mine.py").symlink_to(folder / "ada" / "work.py")
    return folder


def test_a_class_is_graded_and_nobody_harms_another(tmp_path: Path) -> None:
    students = classroom.students(handed_in(tmp_path))
    assert [x.name for x in students] == ["ada", "bob", "cyd", "dan", "eve", "fay", "gus"]
    exercises = classroom.wanted(students)
    assert [x.name for x in exercises] == ["returns", "td0"]
    seen: list[str] = []
    found = classroom.grade(
        students, exercises, limits=sandbox.LIMITS._replace(seconds=2.0), jobs=2, done=lambda x: seen.append(x.student)
    )
    assert sorted(seen) == [x.student for x in found] == [x.name for x in students]
    assert [x.score for x in found] == [2, 1, 0, 0, 1, 0, 0]
    reasons = {x.student: [y.reason for y in x.feedback] for x in found}
    assert reasons["ada"] == ["", ""]
    assert reasons["bob"] == ["you forget gamma", ""]
    assert reasons["cyd"] == ["it takes more than 2 s", "there is no function td0"]
    assert reasons["dan"][0].startswith("work.py is not Python: expected an indented")
    assert reasons["dan"][0].endswith("(line 1); mend that line; there is no function returns")
    assert "sign of delta" in reasons["eve"][1]
    assert found[4].feedback[0].text.startswith("returns is also in 2.py; the one in 1.py is graded.\nreturns: passed")
    assert reasons["fay"][0] == "there is no function returns, but return_s"
    assert reasons["gus"] == ["there is no function returns", "there is no function td0"]


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        classroom.students(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        classroom.students(tmp_path / "nowhere")


def test_a_grader_that_cannot_run_a_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: A, **keywords: A) -> A:
        raise RuntimeError("no process today")

    monkeypatch.setattr(sandbox, "run", fails)
    (tmp_path / "ada.py").write_text(RETURNS)
    students = classroom.students(tmp_path)
    ((feedback,),) = (x.feedback for x in classroom.grade(students, [find("returns")]))
    assert (feedback.score, feedback.reason) == (0.0, "the grader could not run the file (no process today)")


# the command


def test_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exercise", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == list(EXERCISES)


def test_start_writes_a_stub_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new"
    assert main(["exercise", "start", "1", "--dir", str(folder)]) == 0
    file = folder / "returns.py"
    assert file.read_text() == stub(find("returns"))
    file.write_text(RETURNS)
    assert main(["exercise", "start", "returns", "--dir", str(folder)]) == 2
    assert "is there already and is left as it is" in capsys.readouterr().err
    assert file.read_text() == RETURNS


def test_check_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "work.py"
    file.write_text(FORGETS + TD0)
    paths = {name: tmp_path / name for name in ("j.xml", "g.json", "c.csv")}
    options = ["--junit", str(paths["j.xml"]), "--gradescope", str(paths["g.json"]), "--csv", str(paths["c.csv"])]
    assert main(["exercise", "check", str(file), *options]) == 1
    out, err = capsys.readouterr()
    assert "Your numbers are those of this mistake: you forget gamma." in out
    assert "td0: passed, 10 of 10 cases." in out
    assert err.strip() in ALOUD.values()
    assert len(list(ElementTree.parse(paths["j.xml"]).iter("testcase"))) == 2
    assert [x["score"] for x in json.loads(paths["g.json"].read_text())["tests"]] == [0.0, 1.0]
    assert paths["c.csv"].read_text().count("\n") == 3
    file.write_text(TD0.replace("    return V", "    print('V is', V[0], '\\x1b[2J')\n    return V"))
    assert main(["exercise", "check", str(file), "8"]) == 0
    assert "The file printed:\nV is " in (printed := capsys.readouterr().out)
    assert "\x1b" not in printed
    assert main(["exercise", "check", str(tmp_path), "td0"]) == 0


def test_check_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    for k in range(3):
        (folder / f"student{k}.py").write_text(RETURNS if k else FORGETS)
    assert main(["exercise", "check", "--all", str(folder), "returns", "--csv", str(tmp_path / "c.csv")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:3] == ["student0", "no", "0/1"]
    assert lines[2] == ["student1", "pass", "1/1"]
    assert lines[-1] == ["1", "x", "returns:", "you", "forget", "gamma"]
    assert (tmp_path / "c.csv").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "FILE is missing"),
        (["check", "nowhere.py"], "nowhere.py is not there"),
        (["check", "empty.py"], "empty.py defines no function of an exercise, but other; a name of"),
        (["check", "empty.py", "77"], "exercise is '77'"),
        (["check", "empty.py", "td0", "--seconds", "-1"], "--seconds is -1; a positive number"),
        (["check", "empty.py", "td0", "--jobs", "0"], "--jobs is 0; at least 1 is expected"),
        (["check", "empty.py", "td0", "--seconds", "nan"], "--seconds is nan; a positive number"),
        (["check", "syn.py"], "tabrl: syn.py is not Python: expected ':' (line 1); mend that line\n"),
        (["check", "nul.py"], "nul.py is not Python"),
        (["check", "void.py"], "tabrl: void.py defines no function of an exercise; a name of"),
        (["check", "void"], "tabrl: void defines no function of an exercise; a name of"),
        (["check", "--all", "void2"], "tabrl: void2 defines no function of an exercise; a name of"),
        (["check", "work.py", "--csv", "nodir/x.csv"], "--csv is nodir/x.csv; a file in a folder that exists"),
        (["check", "work.py", "--junit", "void"], "--junit is void; a file, not a folder, is expected"),
        (["check", "work.py", "--gradescope", "nodir/g.json"], "--gradescope is nodir/g.json; a file in a folder"),
        (["check", "empty.py", "td0", "--cases", "nowhere.py"], "nowhere.py is not a file"),
        (["check", "--all", ".", "td0", "--gradescope", "x.json"], "is for one student"),
        (["start", "td1"], "did you mean td0"),
    ],
)
def test_wrong_usage_is_told(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "empty.py": "def other(): pass\n",
        "syn.py": "def td0(V, s, r, discount, alpha)\n    return V\n",
        "nul.py": "def td0(): pass\0\n",
        "void.py": "",
        "void2/ada.py": "x = 1\n",
        "work.py": RETURNS,
    }
    (tmp_path / "void").mkdir()
    (tmp_path / "void2").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["exercise", *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("tabrl: ")
    assert message in err
    assert not out
    assert err.count("\n") == 1


def test_a_folder_that_is_closed_to_writing_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work.py").write_text(RETURNS)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # nothing is closed to root
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: pytest.fail("it has begun"))
    assert main(["exercise", "check", str(tmp_path / "work.py"), "--csv", str(tmp_path / "x.csv")]) == 2
    assert "a file in a folder that may be written to is expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def cases(name):\n    return {}['x']\n", "raises KeyError: 'x' (line 2); a list of Case is expected"),
        ("def cases(name):\n    yield 1 / 0\n", "raises ZeroDivisionError: division by zero (line 2); a list"),
        ("def cases(name): pass\n", "raises TypeError: 'NoneType' object is not iterable; a list of Case is"),
    ],
)
def test_cases_that_fail_are_told_in_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work.py").write_text(RETURNS)
    teacher = tmp_path / "bad.py"
    teacher.write_text(text)
    assert main(["exercise", "check", str(tmp_path / "work.py"), "--cases", str(teacher)]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first in ALOUD.values()
    assert second.startswith(f"tabrl: {teacher}: cases('returns') {message}")
    assert not out


def test_a_syntax_error_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "syn.py"
    file.write_text("def td0(V, s, r, discount, alpha)\n    return V\n")
    assert main(["exercise", "check", str(file), "td0"]) == 1
    said = capsys.readouterr().out
    assert "td0: not graded.\nsyn.py is not Python: expected ':' (line 1); mend that line; there is no" in said


def test_all_files_with_the_same_function_are_named(tmp_path: Path) -> None:
    for name in ("1.py", "2.py", "a/1.py", "b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(RETURNS)
    found = classroom.student("ada", tmp_path)
    assert found.remarks == {"returns": "returns is also in 2.py, a/1.py, b.py; the one in 1.py is graded."}
    assert found.files == {"returns": tmp_path / "1.py"}


def test_a_file_that_is_too_long_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "work.py"
    file.write_text(RETURNS + "#" * sandbox.SOURCE)
    monkeypatch.setattr(ast, "parse", lambda *_: pytest.fail("it is parsed"))
    found = classroom.student("ada", file)
    assert found.unread == [f"work.py has {file.stat().st_size} bytes; at most 1000000 are expected"]


MINE = """
from tabrl.grading.exercises import Exercise, register
from tabrl.verify.cases_td import td_cases
register(Exercise("mine", "V, s, r, discount, alpha", "Mine", 5, "E1.7", 5, "V", "V s r discount alpha", td_cases))
"""


@pytest.mark.parametrize("folder", [".", "new"])
def test_start_names_the_teachers_file(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my cases.py").write_text(MINE)
    try:
        assert main(["exercise", "start", "mine", "--cases", "my cases.py", "--dir", folder]) == 0
    finally:
        del EXERCISES["mine"]
    file = Path(folder) / "mine.py"
    then = f"tabrl exercise check {file} --cases 'my cases.py'"
    assert capsys.readouterr().out.endswith(f"then: {then}\n")
    seen = "my cases.py" if folder == "." else "../my cases.py"
    assert f"    tabrl exercise check mine.py --cases '{seen}'\n" in file.read_text()
    try:
        assert main(shlex.split(then)[1:]) == 1
    finally:
        del EXERCISES["mine"]
    assert "it is not written yet" in capsys.readouterr().out


def test_a_stub_is_python_whatever_the_teachers_file_is_called() -> None:
    path = 'C:\\Users\\a"""b.py'
    assert path in (ast.get_docstring(ast.parse(stub(find("returns"), path))) or "")
