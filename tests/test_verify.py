"""Verification: the package against the closed forms, right and wrong functions of a user, and the judge itself."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rational as other_judge
from exercise_files import wrong_rows
from hypothesis import given, settings
from models import mdps, random_policy
from verified import assert_row_passes

from tabrl import MDP, bellman, chain, dp, rational, verify
from tabrl.errors import ModelError
from tabrl.verify import own, record

A = Any
ROWS = ("E1.1", "E1.2", "E1.3", "E1.4", "E1.5")


# the package


@pytest.mark.parametrize("row", ROWS)
def test_package_matches_closed_forms(row: str) -> None:
    assert_row_passes(row, 3)


def test_run_covers_every_row_in_order() -> None:
    found = tuple(dict.fromkeys(c.row for c in verify.run()))
    assert found == tuple(verify.ROWS)
    assert found[: len(ROWS)] == ROWS


def changed(f: Callable[..., A], change: Callable[[A], A]) -> Callable[..., A]:
    return lambda *args, **keywords: change(f(*args, **keywords))


BREAKS: list[tuple[str, str, A, Callable[[A], A]]] = [
    ("E1.1", "discounted_sum", own, lambda G: G * (1 + 1e-9)),
    ("E1.1", "return_variance", chain, lambda x: x * (1 + 1e-9)),
    ("E1.1", "return_skewness", chain, lambda x: -x),
    ("E1.1", "return_moments", chain, lambda x: x + 1e-6),
    ("E1.1", "return_moments", chain, lambda x: np.vstack([x[:1], x[1:] * 1.001])),
    ("E1.2", "evaluate", chain, lambda V: V + 1e-7),
    ("E1.2", "q_from_v", bellman, lambda Q: -Q),
    ("E1.2", "policy_evaluation", dp, lambda it: (s._replace(bound=s.bound / 4) for s in it)),
    ("E1.3", "expectation", bellman, lambda V: V + 1e-9),
    ("E1.3", "occupancy", chain, lambda d: d / d.sum()),
    ("E1.3", "objective", chain, lambda J: J + 1e-6),
    ("E1.3", "policy_bound", bellman, lambda b: b * (1 - 1e-6)),
    ("E1.4", "solve", dp, lambda s: s._replace(V=s.V + 1e-7)),
    ("E1.4", "solve", dp, lambda s: s._replace(pi=s.pi[:, ::-1])),
    ("E1.4", "solve", dp, lambda s: s._replace(policy_loss_bound=np.inf)),
    ("E1.4", "loss_bound", bellman, lambda b: b * 0.98),
    ("E1.5", "solve", dp, lambda s: s._replace(bound=s.bound / 4)),
    ("E1.5", "solve", dp, lambda s: s._replace(V=s.V + np.nan)),
    ("E1.5", "backward_induction", dp, lambda it: (s._replace(V=s.V + 1e-12) for s in it)),
]


@pytest.mark.parametrize("case", range(len(BREAKS)))
def test_a_broken_package_is_caught(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row, name, module, change = BREAKS[case]
    monkeypatch.setattr(module, name, changed(getattr(module, name), change))
    assert any(not c.passed for c in verify.run([row]))


def test_a_broken_contraction_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own.contraction().passed
    broken = changed(bellman.optimality, lambda V: 0.9 * V)
    monkeypatch.setattr(own, "bellman", SimpleNamespace(**{**vars(bellman), "optimality": broken}))
    assert not own.contraction().passed


def test_an_error_of_the_package_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: A) -> A:
        raise RuntimeError("no solver today")

    monkeypatch.setattr(dp, "solve", fails)
    checks = verify.run(["E1.4"])
    assert [(c.passed, c.where) for c in checks] == [(False, "it raises RuntimeError: no solver today")]


def test_loop_moments_against_the_series() -> None:
    n = np.arange(4000)
    for p, gamma in ((0.5, 0.9), (0.9, 1.0), (0.75, 0.25)):
        G = (n if gamma == 1 else (1 - gamma**n) / (1 - gamma)) - 2 * gamma**n
        weight = (1 - p) * p**n
        mean = weight @ G
        variance, third = (weight @ (G - mean) ** k for k in (2, 3))
        assert np.array(own.loop_moments(p, gamma), float) == pytest.approx([mean, variance, third / variance**1.5])


# a user's function


def iterate(P: A, r: A, gamma: float, *, tol: float = 1e-10, reduce: Callable[..., A] = np.max, n: int = 5000) -> A:
    V = np.zeros(len(r))
    for _ in range(n):
        TV = reduce(r + gamma * P @ V, axis=1)
        change, V = abs(TV - V).max(), TV
        if change < tol:
            break
    return V


def policy(P: A, r: A, gamma: float) -> A:
    return np.eye(r.shape[1])[(r + gamma * P @ iterate(P, r, gamma)).argmax(1)]


def evaluate(P: A, r: A, gamma: float, pi: A) -> A:
    return np.linalg.solve(np.eye(len(r)) - gamma * np.einsum("sa,sax->sx", pi, P), (pi * r).sum(1))


def returns(r: A, discount: A) -> A:
    G, y = np.zeros(len(r)), 0.0
    for t in reversed(range(len(r))):
        y = G[t] = r[t] + discount[t] * y
    return G


def backup(P: A, r: A, gamma: float, pi: A, V: A) -> A:
    return (pi * (r + gamma * P @ V)).sum(1)


RIGHT: dict[str, Callable[..., A]] = {
    "E1.1": returns,
    "E1.2": evaluate,
    "E1.3": backup,
    "E1.4": policy,
    "E1.5": iterate,
}


@pytest.mark.parametrize("row", ROWS)
def test_a_right_function_passes(row: str) -> None:
    checks = verify.check(row, RIGHT[row])
    assert len(checks) >= 7
    assert all(c.passed for c in checks), [c for c in checks if not c.passed]


def test_a_policy_that_mixes_tied_actions_passes() -> None:
    def mixed(P: A, r: A, gamma: float) -> A:
        Q = r + gamma * P @ iterate(P, r, gamma)
        best = abs(Q - Q.max(1, keepdims=True)) < 1e-6
        return best / best.sum(1, keepdims=True)

    checks = verify.check("E1.4", mixed)
    assert all(c.passed for c in checks)


def led_on(P: A, *, anywhere: bool = False) -> A:
    """Give terminal states a successor: state 0, or each equally likely."""
    P = P.copy()
    ends = P.sum((1, 2)) == 0
    P[ends] = 1 / len(P) if anywhere else np.eye(len(P))[0]
    return P


def improved_once(P: A, r: A, gamma: float) -> A:
    """Greedy for the values of the policy with equal weights."""
    V = evaluate(P, r, gamma, np.full(r.shape, 1 / r.shape[1]))
    return np.eye(r.shape[1])[(r + gamma * P @ V).argmax(1)]


def swept(P: A, r: A, gamma: float, pi: A, V: A) -> A:
    """One sweep in place."""
    for s in range(len(V)):
        V[s] = pi[s] @ (r[s] + gamma * P[s] @ V)
    return V


MISTAKES: list[tuple[str, str, Callable[..., A]]] = [
    ("E1.1", "forget gamma", lambda r, d: np.cumsum(r[::-1])[::-1]),
    ("E1.1", "go on across the end of an episode", lambda r, d: returns(r, np.full(len(d), d.max()))),
    ("E1.1", "gamma multiplies the reward", lambda r, d: returns(r * d, d)),
    ("E1.1", "discount of the next step", lambda r, d: returns(r, np.append(d[1:], 0.0))),
    ("E1.1", "the past instead of the future", lambda r, d: returns(r[::-1], d[::-1])[::-1]),
    ("E1.1", "from the start of the episode", lambda r, d: np.cumsum((r * np.cumprod([1.0, *d[:-1]]))[::-1])[::-1]),
    ("E1.2", "forget gamma", lambda P, r, g, pi: evaluate(P, r, 1 - 1e-12, pi)),
    ("E1.2", "equal weights instead of pi", lambda P, r, g, pi: evaluate(P, r, g, np.full(r.shape, 1 / r.shape[1]))),
    ("E1.2", "best action instead of the average", lambda P, r, g, pi: iterate(P, r, g)),
    ("E1.2", "axes exchanged", lambda P, r, g, pi: evaluate(P.transpose(2, 1, 0), r, g, pi)),
    ("E1.2", "gamma multiplies the reward", lambda P, r, g, pi: g * evaluate(P, r, g, pi)),
    ("E1.2", "bootstrap from a terminal state", lambda P, r, g, pi: evaluate(led_on(P), r, g, pi)),
    ("E1.2", "leave out what comes after", lambda P, r, g, pi: (pi * r).sum(1)),
    ("E1.3", "equal weights instead of pi", lambda P, r, g, pi, V: (r + g * P @ V).mean(1)),
    ("E1.3", "bootstrap from a terminal state", lambda P, r, g, pi, V: backup(led_on(P), r, g, pi, V)),
    ("E1.3", "axes exchanged", lambda P, r, g, pi, V: backup(P.transpose(2, 1, 0), r, g, pi, V)),
    ("E1.3", "gamma multiplies the reward", lambda P, r, g, pi, V: g * backup(P, r, 1.0, pi, V)),
    ("E1.3", "forget gamma", lambda P, r, g, pi, V: backup(P, r, 1.0, pi, V)),
    ("E1.3", "best action instead of the average", lambda P, r, g, pi, V: (r + g * P @ V).max(1)),
    ("E1.3", "new values within the sweep", swept),
    ("E1.3", "return V_pi, the fixed point", lambda P, r, g, pi, V: evaluate(P, r, g, pi)),
    ("E1.3", "leave out what comes after", lambda P, r, g, pi, V: (pi * r).sum(1)),
    ("E1.4", "greedy for the immediate reward", lambda P, r, g: policy(P, r, 0.0)),
    ("E1.4", "forget gamma", lambda P, r, g: policy(P, r, 1.0)),
    ("E1.4", "smallest action value", lambda P, r, g: policy(P, -r, g)),
    ("E1.4", "one improvement, not the last", improved_once),
    ("E1.4", "equal weights", lambda P, r, g: np.full(r.shape, 1 / r.shape[1])),
    ("E1.5", "forget gamma", lambda P, r, g: iterate(P, r, 1.0)),
    ("E1.5", "mean over actions instead of the max", lambda P, r, g: iterate(P, r, g, reduce=np.mean)),
    ("E1.5", "smallest action value", lambda P, r, g: iterate(P, r, g, reduce=np.min)),
    ("E1.5", "bootstrap from a terminal state", lambda P, r, g: iterate(led_on(P), r, g)),
    ("E1.5", "bootstrap from a terminal state", lambda P, r, g: iterate(led_on(P, anywhere=True), r, g)),
    ("E1.5", "leave out what comes after", lambda P, r, g: r.max(1)),
    ("E1.5", "gamma multiplies the reward", lambda P, r, g: iterate(P, g * r, g)),
    ("E1.5", "stop after two sweeps", lambda P, r, g: iterate(P, r, g, n=2)),
    ("E1.5", "stopped too early", lambda P, r, g: iterate(P, r, g, tol=1e-5)),
    *wrong_rows(ROWS),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_a_known_mistake_is_named(case: int) -> None:
    row, text, wrong = MISTAKES[case]
    failed = [c for c in verify.check(row, wrong) if not c.passed]
    named = [c for c in failed if text in c.where and not c.quantity.endswith("gamma 0")]  # gamma 0 hides much
    assert named, failed
    assert all(c.difference > c.tolerance for c in failed)


def test_a_small_change_is_caught_in_every_entry() -> None:
    for s in range(5):

        def nudged(P: A, r: A, gamma: float, s: int = s) -> A:
            V = iterate(P, r, gamma)
            V[s % len(V)] += 1e-4 * max(1, abs(V).max())
            return V

        checks = verify.check("E1.5", nudged)
        assert not any(c.passed for c in checks)
        assert any(c.where.startswith(f"s={s}: ") for c in checks)


FAULTS: list[tuple[str, Callable[..., A], str]] = [
    ("E1.5", lambda P, r, g: iterate(P, r, g)[1:], "the result has shape (1,); (2,) is expected"),
    ("E1.5", lambda P, r, g: None, "it returns NoneType; an array of shape (2,) is expected"),
    ("E1.5", lambda P, r, g: "V", "it returns str; an array of shape (2,) is expected"),
    ("E1.5", lambda P, r, g: [1.0, np.nan], "the result at s=1 is nan; a finite number is expected"),
    ("E1.5", lambda P, r, g: 1 / 0, "it raises ZeroDivisionError: division by zero (line "),
    ("E1.5", lambda P: P, "it raises TypeError: "),
    ("E1.4", lambda P, r, g: [0, 1], "(2, 2) is expected; make actions one-hot: np.eye(A)[actions]"),
    ("E1.4", lambda P, r, g: np.full((2, 2), 0.25), "pi[s=0] is [0.25, 0.25]; a distribution over actions"),
    ("E1.4", lambda P, r, g: np.array([[1, 0], [2, -1]]), "pi[s=1] is [2.0, -1.0]; a distribution over actions"),
    ("E1.4", lambda P, r, g: np.array([[1, 0], [np.inf, 0]]), "the result at s=1, a=0 is inf; a finite number"),
]


@pytest.mark.parametrize("case", range(len(FAULTS)))
def test_a_fault_says_what_and_where(case: int) -> None:
    row, fn, text = FAULTS[case]
    check = verify.check(row, fn)[0]
    assert not check.passed
    assert check.difference == np.inf
    assert text in check.where


def test_a_function_gets_copies() -> None:
    def spoils(P: A, r: A, gamma: float) -> A:
        V = iterate(P, r, gamma)
        P[:], r[:] = 0.0, 0.0
        return V

    assert all(c.passed for c in verify.check("E1.5", spoils) + verify.check("E1.5", iterate))


def test_tolerance_is_relative_to_the_largest_value() -> None:
    checks = verify.check("E1.5", lambda P, r, g: iterate(P, r, g) * (1 + 1e-4), tol=1e-3)
    assert all(c.passed for c in checks)
    assert max(c.tolerance for c in checks) == pytest.approx(1e-3 * 167.11, rel=1e-3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("E1.55", "row is 'E1.55'; one of {rows} is expected; did you mean E1.5 or"),
        ("e1.5", "row is 'e1.5'; one of {rows} is expected; did you mean E1.5 or"),
        ("nonsense", "row is 'nonsense'; one of {rows} is expected"),
    ],
)
def test_an_unknown_row_lists_the_known(row: str, message: str) -> None:
    with pytest.raises(ValueError, match="row is") as error:
        verify.check(row, iterate)
    assert str(error.value).startswith(message.format(rows=", ".join(verify.ROWS)))
    with pytest.raises(ValueError, match="row is"):
        verify.run([row])


def test_what_is_no_function_or_tolerance_is_refused() -> None:
    with pytest.raises(TypeError, match="fn is 3; a function is expected"):
        verify.check("E1.5", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tol is 0; a positive number is expected"):
        verify.check("E1.5", iterate, tol=0)
    with pytest.raises(ValueError, match=r"row E1\.5 is registered twice"):
        verify.register(verify.find("E1.5"))


# loading


def test_load_imports_a_function_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "solution.py"
    file.write_text("def double(x):\n    return 2 * x\n\ndef broken(P, r, gamma):\n\n    return r / 0 + undefined\n")
    assert verify.load(f"{file}:double")(4) == 8
    check = verify.check("E1.5", verify.load(f"{file}:broken"))[0]
    assert "it raises " in check.where
    assert check.where.endswith("(line 6)")


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("solution.py", ValueError, "'solution.py' names no function; FILE.py:FUNCTION is expected"),
        ("solution.py:", ValueError, "'solution.py:' names no function"),
        ("nosuch.py:f", FileNotFoundError, "nosuch.py is not a file"),
        ("solution.py:solvr", ValueError, "solution.py has no function 'solvr'; did you mean solve?"),
        ("solution.py:LIMIT", ValueError, "solution.py has no function 'LIMIT'; did you mean solve?"),
        ("empty.py:f", ValueError, "empty.py has no function 'f'; it defines no functions"),
        ("wrong.py:f", ValueError, "wrong.py raises ZeroDivisionError: division by zero (line 2) on import"),
        ("syntax.py:f", ValueError, "syntax.py raises SyntaxError: "),
        ("model.txt:f", ValueError, "model.txt cannot be imported; a file that ends in .py is expected"),
    ],
)
def test_load_says_what_is_missing(
    target: str, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "solution.py": "LIMIT = 3\ndef solve(): pass\n",
        "empty.py": "",
        "wrong.py": "x = 1\nx / 0\n",
        "syntax.py": "def f(:\n",
        "model.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(kind) as error:
        verify.load(target)
    assert message in str(error.value)


# records


def test_agree_reports_the_worst_entry_and_fails_on_nan() -> None:
    half = [Fraction(1, 2)] * 2
    good = record.agree("E0", "q", [record.Comparison("a", [0.5, 0.5], half), record.Comparison("b", [0.5, 0.6], half)])
    assert (good.passed, good.where, good.value, good.expected) == (False, "b, entry 1", 0.6, 0.5)
    bad = record.agree("E0", "q", [record.Comparison("a", [np.nan, 0.5], half)])
    assert not bad.passed
    assert bad.difference == np.inf
    with pytest.raises(ValueError, match=r"q has shape \(1,\); \(2,\) is expected"):
        record.agree("E0", "q", [record.Comparison("a", [0.5], half)])


def test_within_is_exact_and_refuses_infinity() -> None:
    third = Fraction(1, 3)
    assert not record.within("E0", "q", [("", third, float(third))]).passed  # the float is just below 1/3
    assert record.within("E0", "q", [("", third, np.nextafter(float(third), 1))]).passed
    assert not record.within("E0", "q", [("", third, np.inf)]).passed
    assert not record.within("E0", "q", [("", third, np.nan)]).passed
    zero = record.within("E0", "q", [("a", Fraction(1, 10), 1.0), ("b", Fraction(1, 10**30), 0.0)])
    assert (zero.passed, zero.where) == (False, "b")


# the judge


def model(gamma: float = 0.5, **keywords: A) -> MDP:
    return MDP(np.array([[[0, 1.0], [1, 0]], [[0, 1], [1, 0]]]), np.array([[0, 1.0], [2, 3]]), gamma, **keywords)


def test_rational_values_by_hand() -> None:
    # V(0) = max(V(1)/2, 1 + V(0)/2), V(1) = max(2 + V(1)/2, 3 + V(0)/2)
    assert rational.brute_force(model()) == [2, 4]
    assert rational.exact_policy_values(model(), [[1, 0], [0, 1]]) == [2, 4]
    assert rational.exact_policy_values(model(), [[0.5, 0.5], [0, 1]]) == [2, 4]
    assert rational.occupancy(model(mu=np.array([1.0, 0])), [[0, 1], [0, 1]]) == [2, 0]
    assert len(list(rational.deterministic_policies(model()))) == 4


def test_rational_reads_floats_exactly() -> None:
    (V,) = rational.exact_policy_values(MDP(np.ones((1, 1, 1)), np.array([[0.1]]), 0.9), [[1.0]])
    assert V * (1 - Fraction(0.9)) == Fraction(0.1)


def test_rational_refuses_what_has_no_finite_value() -> None:
    with pytest.raises(ModelError, match=r"r\[1\] is 2.0 where a policy can stay; 0 or less is expected"):
        rational.brute_force(model(1.0))
    with pytest.raises(ModelError, match=r"r\[0\] is 1.0 in a state that never ends; 0 is expected at gamma = 1"):
        rational.exact_policy_values(model(1.0), [[0, 1], [0, 1]])
    with pytest.raises(ModelError, match="mdp has no policy that ends everywhere, and staying costs"):
        rational.brute_force(MDP(np.ones((1, 1, 1)), np.array([[-1.0]]), 1.0))


def test_return_distribution_adds_up() -> None:
    P = np.array([[[0, 0.5, 0.5], [0, 0, 1]], [[0, 0, 1], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]])
    mdp = MDP(P, np.array([[1.0, 2], [4, 8], [0, 0]]), 0.5, terminal=np.arange(3) == 2)
    law = rational.return_distribution(mdp, [[0.5, 0.5], [0.25, 0.75], [1, 0]], 0)
    assert law == {Fraction(1): Fraction(1, 4), Fraction(2): Fraction(1, 2), 3: Fraction(1, 16), 5: Fraction(3, 16)}


@settings(max_examples=30, deadline=None)
@given(mdp=mdps(S=3, A=2))
def test_two_judges_agree(mdp: MDP) -> None:
    pi = random_policy(np.random.default_rng(0), mdp)
    assert rational.brute_force(mdp) == other_judge.brute_force_optimal_values(mdp)
    assert rational.exact_policy_values(mdp, pi) == other_judge.exact_policy_values(mdp, pi)
    assert rational.dot(rational.exact(mdp.mu), rational.exact_policy_values(mdp, pi)) == rational.dot(
        rational.occupancy(mdp, pi), rational.induced(rational.tables(mdp), pi)[1]
    )
