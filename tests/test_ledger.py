"""The ledger, the README and the verifier say the same, and what they name exists."""

import ast
import doctest
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from tabrl import verify
from tabrl.cli import COMMANDS
from tabrl.lessons.contents import lessons

ROOT = Path(__file__).resolve().parent.parent
LEDGER = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
IDS = [f"E1.{i}" for i in range(1, 18)] + [f"E2.{i}" for i in range(1, 13)]
CODE = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[dict[str, str]]:
    """The table whose first column has this heading, as dictionaries."""
    found: list[dict[str, str]] = []
    names: list[str] = []
    for line in LEDGER.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            names = []
        elif not names:
            names = cells
        elif names[0] == heading and not set(line) <= set("|- "):
            assert len(cells) == len(names), line
            found.append(dict(zip(names, cells, strict=True)))
    return found


EQUATIONS = {row["id"]: row for row in rows("id")}
DONE = [row for row in EQUATIONS.values() if row["status"] == "done"]
CORRECTIONS = rows("no.")
LESSONS = {x.file.stem: x for x in lessons().values()}


def resolve(path: str) -> object:
    """The object of a dotted path, such as tabrl.chain.evaluate."""
    parts = path.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts[:k]).startswith(error.name):
                raise
            continue
        for name in parts[k:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_row_is_there_once_and_in_order() -> None:
    assert [row["id"] for row in rows("id")] == IDS
    assert [row["no."] for row in CORRECTIONS] == [str(i) for i in range(1, 17)]
    for row in [*EQUATIONS.values(), *CORRECTIONS]:
        assert row["status"] in {"planned", "done"}, row
    assert {"E1.1", "E1.2", "E1.3", "E1.4", "E1.5"} <= {row["id"] for row in DONE}


@pytest.mark.parametrize("row", DONE, ids=lambda row: row["id"])
def test_a_done_row_names_functions_that_exist(row: dict[str, str]) -> None:
    names = CODE.findall(row["functions"])
    assert names
    for name in names:
        function = resolve(name)
        assert callable(function), name
        assert function.__doc__, name


@pytest.mark.parametrize("row", DONE, ids=lambda row: row["id"])
def test_a_done_row_names_tests_that_exist(row: dict[str, str]) -> None:
    names = CODE.findall(row["tests"])
    assert names
    for name in names:
        file, _, test = name.partition("::")
        assert test.startswith("test_"), name
        assert test in names_in(file), name


@pytest.mark.parametrize("row", [*DONE, *CORRECTIONS], ids=lambda row: row.get("id") or f"correction {row['no.']}")
def test_named_lessons_and_experiments_exist(row: dict[str, str]) -> None:
    for name in CODE.findall(row.get("lesson") or row.get("experiment", "")):
        if name.removeprefix("tabrl.lessons.") not in LESSONS:  # lessons need marimo, which tests of theirs import
            resolve(name)


@pytest.mark.parametrize("row", DONE, ids=lambda row: row["id"])
def test_a_done_row_names_a_lesson_that_teaches_it(row: dict[str, str]) -> None:
    names = [name.removeprefix("tabrl.lessons.") for name in CODE.findall(row["lesson"])]
    assert any(row["id"] in LESSONS[name].rows for name in names if name in LESSONS), row["lesson"]


def test_done_corrections_have_an_experiment_and_a_test() -> None:
    for row in CORRECTIONS:
        if row["status"] == "done":
            assert CODE.findall(row["experiment"]), row
            assert [file for file in CODE.findall(row["test"]) if names_in(file)], row


def test_the_verifier_reports_exactly_the_done_rows() -> None:
    done = {row["id"] for row in DONE}
    assert set(verify.ROWS) == done
    assert {check.row for check in verify.run()} == done


def test_signatures_are_documented_on_the_page_and_in_the_module() -> None:
    documented = {row["row"]: row["your function"] for row in rows("row")}
    assert set(documented) == set(verify.ROWS)
    for name, row in verify.ROWS.items():
        signature = re.search(r"f\([^)]*\)", row.signature)
        assert signature, row
        assert signature[0] in documented[name]
        assert f"{name}  {signature[0]} -> " in str(verify.__doc__)


def test_missing_names_are_noticed() -> None:
    with pytest.raises(AttributeError):
        resolve("tabrl.chain.no_such_function")
    with pytest.raises(ModuleNotFoundError):
        resolve("tabrl_nowhere.f")
    assert "test_no_such_test" not in names_in("tests/test_ledger.py")


def test_readme_code_runs() -> None:
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False, encoding="utf-8")
    assert found.attempted >= 8
    assert not found.failed


def test_readme_names_commands_that_exist() -> None:
    commands = set(re.findall(r"^(?:\.venv/bin/)?tabrl (\w+)", README, re.MULTILINE))
    assert commands
    assert commands <= set(COMMANDS)


def test_readme_has_both_commands() -> None:
    for mark, last in (("main-command", "tabrl report"), ("test-command", "pytest")):
        block = re.search(rf"<!-- {mark} -->\n```\w*\n(.+?)\n```", README, re.DOTALL)
        assert block, mark
        assert block[1].startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")
        assert block[1].endswith(last)


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *(p.name for p in DOCS)])
def test_links_lead_to_files_of_the_repository(page: str) -> None:
    file = next(path for path in (*ROOT.glob("*.md"), *DOCS) if path.name == page)
    for link in re.findall(r"\]\(([^)#]+)\)", file.read_text(encoding="utf-8")):
        if "://" not in link:
            target = (file.parent / link).resolve()
            assert target.is_file(), link
            assert target.is_relative_to(ROOT), link
