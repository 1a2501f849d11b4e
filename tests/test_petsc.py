"""Inexact policy iteration over processes. What needs petsc4py is skipped, with a message, where it is missing."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from models import random_mdp
from rational import at_most, distance, exact_optimal_values, exact_policy_values, shortfall

from tabrl import MDP, dp, envs, petsc
from tabrl.errors import MissingExtra, ModelError, ShapeError
from tabrl.petsc import Rows, evaluation, rows_of, solver
from tabrl.petsc.rows import checked

ROOT = Path(__file__).resolve().parent.parent
installed = pytest.mark.skipif(
    importlib.util.find_spec("petsc4py") is None, reason='petsc4py is not installed; pip install "tabrl[petsc]"'
)
launched = pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
Build = Callable[[int, int], tuple[Any, ...]]


def draw(seed: int) -> MDP:
    """A random model, gamma from .5 to .999; dense or sparse, with terminal states and masks or without."""
    rng = np.random.default_rng([70, seed])
    return random_mdp(rng, gamma=float(1 - 10 ** rng.uniform(-3, np.log10(0.5))))


def ring(**wrong: Any) -> Rows:
    """Nine states in a ring, state 8 terminal, action 1 illegal in state 3; `wrong` edits what is built, by state."""

    def build(first: int, last: int) -> tuple[Any, ...]:
        s = np.arange(9)
        P = np.zeros((9, 2, 9))
        P[s, 0, (s + 1) % 9], P[s, 1, s] = 1.0, 1.0
        r, terminal, legal = np.ones((9, 2)), s == 8, np.ones((9, 2), bool)
        legal[3, 1], r[8], P[8] = False, 0.0, 0.0
        for name, (where, value) in wrong.items():
            {"P": P, "r": r, "terminal": terminal, "legal": legal}[name][where] = value
        part = slice(first, last)
        return sp.csr_array(P[part].reshape(-1, 9)), r[part], terminal[part], legal[part]

    return Rows(9, 2, 0.9, build)


# without petsc4py


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    with pytest.raises(MissingExtra, match=r'petsc4py is not installed.*pip install "tabrl\[petsc\]"'):
        petsc.solve(draw(0))


@pytest.mark.parametrize("seed", range(10))
def test_rows_of_a_model_are_its_rows(seed: int) -> None:
    mdp = draw(seed)
    for cut in range(1, mdp.S):
        blocks = [checked(rows_of(mdp), *ends) for ends in ((0, cut), (cut, mdp.S))]
        assert (sp.vstack([b.P for b in blocks]) != mdp.csr).nnz == 0
        for name in ("r", "terminal", "legal"):
            assert np.array_equal(np.concatenate([getattr(b, name) for b in blocks]), getattr(mdp, name))


@pytest.mark.parametrize("side", [2, 3, 7])
def test_the_rows_of_the_benchmark_are_those_of_the_grid(side: int) -> None:
    spec = importlib.util.spec_from_file_location("petsc_rows", ROOT / "benchmarks" / "petsc_rows.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    mdp, S = envs.slippery_grid(side), side * side
    model = Rows(S, 4, 0.99, module.grid_rows(side))
    for first, last in ((0, S), (1, S), (0, S - 1), (S // 2, S)):
        block, own = checked(model, first, last), mdp.csr[first * 4 : last * 4]
        own.sort_indices()
        assert all(np.array_equal(getattr(block.P, k), getattr(own, k)) for k in ("data", "indices", "indptr"))
        assert np.array_equal(block.r, mdp.r[first:last]) and np.array_equal(block.terminal, mdp.terminal[first:last])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"P": ((5, 1, 5), 0.5)}, r"P\[s=5, a=1\] sums to 0.5; every row must be a distribution"),
        ({"P": ((5, 0, 6), -1.0)}, r"P\[s=5, a=0, s'=6\] is -1.0; a probability >= 0 is expected"),
        ({"P": ((6, 1, 2), np.nan)}, r"P\[s=6, a=1, s'=2\] is nan; a probability >= 0"),
        ({"P": ((6, 1, 2), np.inf)}, r"P\[s=6, a=1, s'=2\] is inf; a probability >= 0"),
        ({"P": ((8, 1, 2), 1.0)}, r"P\[s=8, a=1, s'=2\] is 1.0; no way out of a terminal state"),
        ({"P": ((8, 1, 8), 0.5)}, r"P\[s=8, a=1\] sums to 0.5"),
        ({"r": ((7, 0), np.inf)}, r"r\[s=7, a=0\] is inf; a finite number"),
        ({"r": ((8, 1), 2.0)}, r"r\[s=8, a=1\] is 2.0; a terminal state pays 0"),
        ({"legal": (4, False)}, r"legal\[s=4\] is all False"),
    ],
)
def test_wrong_rows_are_named_by_their_state(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        checked(ring(**wrong), 4, 9)


def test_rows_of_illegal_actions_are_not_read() -> None:
    block = checked(ring(P=((3, 1, 3), 7.0), r=((3, 1), np.nan)), 2, 5)
    assert block.P[[3]].nnz == 0 and block.r[1, 1] == 0.0


def build_of(P: Any = None, r: Any = None, *more: Any) -> Build:
    """A function that returns the same whatever it is asked for."""
    P = sp.csr_array(np.eye(2)) if P is None else P
    return lambda first, last: (P, np.zeros((2, 1)) if r is None else r, *more)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (build_of(np.eye(2)), ShapeError, "is a ndarray; a CSR array of shape"),
        (build_of(sp.coo_array(np.eye(2))), ShapeError, "is in coo format; a CSR array"),
        (build_of(sp.csr_array(np.eye(3))), ShapeError, r"has shape \(3, 3\); \(2, 2\) is expected"),
        (build_of(sp.csr_array(1j * np.eye(2))), ModelError, "P of build.* has dtype complex128"),
        (build_of(r=np.zeros(2)), ShapeError, r"r of build.* has shape \(2,\); \(2, 1\) is expected"),
        (build_of(r=np.array([["a"], ["b"]])), ModelError, "r of build.* has dtype"),
        (build_of(None, None, [0]), ShapeError, r"terminal\[0:2\] has shape"),
        (build_of(None, None, [0, 2]), ModelError, r"terminal\[0:2\]\[1\] is 2"),
        (build_of(None, None, None, None, None), ModelError, "returned 5 items"),
        (lambda first, last: None, ModelError, "returned NoneType"),
    ],
)
def test_what_build_returns_is_checked(build: Build, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked(Rows(2, 1, 0.5, build), 0, 2)


def test_damaged_rows_are_named() -> None:
    twice, beyond = sp.csr_array(np.eye(2)), sp.csr_array(np.eye(2))
    beyond.indices[1] = 9
    twice = sp.csr_array((np.full(4, 0.5), [0, 0, 0, 1], [0, 2, 4]), shape=(2, 2))
    with pytest.raises(ModelError, match=r"P\[s=1, a=0, s'=9\] is 1.0; a next state in 0..1 is expected"):
        checked(Rows(2, 1, 0.5, build_of(beyond)), 0, 2)
    with pytest.raises(ModelError, match=r"P\[s=0, a=0, s'=0\] is 0.5; one entry per next state"):
        checked(Rows(2, 1, 0.5, build_of(twice)), 0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0.5), "S is 0"),
        ((2, 1.5, 0.5), "A is 1.5"),
        ((2, True, 0.5), "A is True"),
        ((2, 1, 1.5), "gamma is 1.5"),
    ],
)
def test_sizes_are_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Rows(*[*arguments, build_of()])


def test_gamma_one_is_refused() -> None:
    with pytest.raises(ModelError, match="gamma is 1; a discount below 1 is expected"):
        petsc.solve(Rows(2, 1, 1.0, build_of()))
    with pytest.raises(ValueError, match="tol is 0"):
        petsc.solve(Rows(2, 1, 0.5, build_of()), tol=0)


# with petsc4py, one process


def violations(mdp: MDP) -> list[str]:
    """Everything that a certificate claims about this model and that is not true."""
    V_star, x, y = exact_optimal_values(mdp), petsc.solve(mdp), dp.solve(mdp)
    loss = shortfall(V_star, exact_policy_values(mdp, x.pi))
    claims = {
        "bound": at_most(distance(x.V, V_star), x.bound),
        "policy loss": at_most(loss, x.policy_loss_bound),
        "converged": x.converged == (x.bound <= 1e-8) == (x.status == "certified"),
        "finite": np.isfinite(x.bound),
        "same as dp.solve": at_most(max(Fraction(float(d)) for d in abs(x.V - y.V)), x.bound + y.bound),
        "Q": at_most(max(Fraction(float(d)) for d in abs(x.Q - y.Q).ravel()), x.bound + y.bound),
        "legal": not x.pi[~mdp.legal].any() and not x.Q[~mdp.legal].any() and not x.V[mdp.terminal].any(),
    }
    return [name for name, true in claims.items() if not true]


@installed
@pytest.mark.parametrize("seed", range(60))
def test_bounds_contain_the_true_error(seed: int) -> None:
    assert violations(draw(seed)) == []


@installed
@pytest.mark.parametrize("seed", range(15))
def test_policies_may_be_evaluated_by_krylov_solves_alone(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "SLOW", 0.0)
    mdp = draw(seed)
    records = list(petsc.inexact_policy_iteration(mdp))
    V_star = exact_optimal_values(mdp)
    assert all(at_most(distance(x.V, V_star), x.bound) for x in records)
    assert any(x.inner for x in records) or len(records) <= 2
    assert violations(mdp) == []


@installed
@pytest.mark.parametrize("seed", range(15))
def test_plain_sweeps_where_nothing_is_compiled(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "compiled", lambda: False)
    assert violations(draw(seed)) == []


@installed
@pytest.mark.parametrize("lie", [np.nan, np.inf, 1e124, -1.0])
def test_a_solver_that_lies_does_no_harm(lie: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def correction(matrix: Any, d: Any, rtol: float) -> Any:
        calls.append(rtol)
        return np.full_like(d, lie), 7

    monkeypatch.setattr(evaluation, "correction", correction)
    monkeypatch.setattr(solver, "SLOW", 0.0)
    assert [violations(draw(seed)) for seed in range(15)] == [[]] * 15
    assert calls


@installed
def test_records_of_a_run() -> None:
    mdp = envs.slippery_grid(12, gamma=0.95)
    records = list(petsc.inexact_policy_iteration(mdp, tol=1e-6))
    assert [x.k for x in records] == list(range(1, len(records) + 1))
    assert records[-1].bound <= 1e-6 < records[-2].bound
    assert records[0].V.shape == (144,) and records[-1].changed == 0
    x = petsc.solve(mdp, tol=1e-6)
    assert (x.iterations, x.status, x.method) == (len(records), "certified", "inexact_policy_iteration")


@installed
def test_slow_mixing_is_left_to_the_krylov_method() -> None:
    """A ring that never ends: sweeps alone would take tens of thousands of passes."""
    S = 50
    s = np.arange(S)
    P = 0.5 * (np.eye(S) + np.eye(S)[(s + 1) % S])[:, None]
    mdp = MDP(P, np.cos(s)[:, None], 0.9999)
    records = list(petsc.inexact_policy_iteration(mdp, tol=1e-6))
    assert records[-1].bound <= 1e-6 and sum(x.inner > 0 for x in records) >= 1
    assert len(records) < 50
    assert at_most(distance(records[-1].V, exact_optimal_values(mdp)), records[-1].bound)


@installed
def test_why_it_stops_is_said() -> None:
    mdp = MDP(np.full((8, 1, 8), 0.125), np.arange(8.0), 0.999)
    x = petsc.solve(mdp, tol=1e-13)
    assert (x.status, x.converged) == ("rounding floor", False) and 1e-13 < x.bound < 1e-7
    x = petsc.solve(mdp, tol=1e-13, limit=2)
    assert (x.status, x.iterations) == ("iteration limit", 2)
    assert at_most(distance(x.V, exact_optimal_values(mdp)), x.bound)


@installed
def test_rows_give_a_share() -> None:
    x = petsc.solve(ring())
    assert (x.first, x.last) == (0, 9)
    assert x.solution.V[0] == pytest.approx(10.0) and x.solution.V[8] == 0.0
    assert np.array_equal(petsc.gather(x.solution.pi), x.solution.pi)
    with pytest.raises(ModelError, match=r"P\[s=5, a=1\] sums to 0.5"):
        petsc.solve(ring(P=((5, 1, 5), 0.5)))


# with petsc4py, two processes

PROGRAM = """
import json, sys
sys.path.insert(0, "tests")
import numpy as np
from petsc4py import PETSc
from test_petsc import draw, ring, violations
from tabrl import dp, envs, petsc

def message(model):
    try:
        petsc.solve(model)
    except Exception as error:
        return str(error)

def broken(first, last):
    return 1 / 0 if first else ring().build(first, last)

x = petsc.solve(ring(), tol=1e-6)
mdp = envs.slippery_grid(30, gamma=0.999)
y, z = petsc.solve(mdp, tol=1e-6), dp.solve(mdp, tol=1e-6)
said = {
    "size": PETSc.COMM_WORLD.size,
    "violations": [seed for seed in range(25) if violations(draw(seed))],
    "share": [x.first, x.last, x.solution.Q.shape, petsc.gather(x.solution.V).round(5).tolist()],
    "grid": [y.converged, bool(abs(y.V - z.V).max() <= y.bound + z.bound), y.V.sum()],
    "errors": [
        message(ring(P=((7, 1, 7), 0.5))),
        message(ring(r=((1, 0), np.inf))),
        message(petsc.Rows(9, 2, 0.9, broken)),
        message(petsc.Rows(1, 2, 0.9, broken)),
    ],
}
with open(f"{sys.argv[1]}/{PETSc.COMM_WORLD.rank}.json", "w") as file:
    json.dump(said, file)
"""


@installed
@launched
def test_two_processes(tmp_path: Path) -> None:
    command = ["mpirun", "-n", "2", sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(tmp_path.iterdir())]
    if found[0]["size"] == 1:
        pytest.skip("mpirun is not that of petsc4py's MPI")
    assert [x["size"] for x in found] == [2, 2]
    assert [x["violations"] for x in found] == [[], []]
    V = [10.0] * 8 + [0.0]
    assert [x["share"] for x in found] == [[0, 4, [4, 2], V], [4, 9, [5, 2], V]]
    assert found[0]["grid"] == found[1]["grid"] and found[0]["grid"][:2] == [True, True]
    for x in found:
        assert [said in message for said, message in zip(ERRORS, x["errors"], strict=True)] == [True] * 4


ERRORS = (
    "P[s=7, a=1] sums to 0.5; every row must be",
    "r[s=1, a=0] is inf; a finite number is expected",
    "division by zero",
    "S is 1 for 2 processes",
)
