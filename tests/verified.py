"""What the tests of the verifier ask of every row."""

from collections.abc import Iterable
from typing import Any

from tabrl import verify
from tabrl.verify import Check


def assert_row_passes(row: str, least: int) -> None:
    """The package passes so many checks of the row or more, each within its tolerance."""
    checks = verify.run([row])
    assert len(checks) >= least
    assert {c.row for c in checks} == {row}
    for c in checks:
        assert c.passed, c
        assert c.difference <= c.tolerance, c


def assert_named(row: str, text: str, wrong: Any) -> list[Check]:
    """A wrong function fails, and two cases or more say why. Returns the failed checks."""
    failed = [c for c in verify.check(row, wrong) if not c.passed]
    named = [c for c in failed if text in c.where]
    assert len(named) >= 2, failed
    return failed


def untried(row: str, mistakes: Iterable[tuple[str, str, Any]]) -> set[str]:
    """Mistakes that the cases of a row know, and none of the wrong functions makes."""
    known = {name for case in verify.find(row).cases() for name, _ in case.mistakes()}
    tried = [text for r, text, _ in mistakes if r == row]
    return {name for name in known if not any(text in name for text in tried)}
