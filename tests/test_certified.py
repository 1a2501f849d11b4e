"""The certificates against exact rational arithmetic. `benchmarks/certified.py` runs the same on 4,000 models."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from models import Rng, random_mdp, random_rewards
from rational import Row, at_most, backup, distance, exact_optimal_values, exact_policy_values, shortfall, tables
from test_undiscounted import NEVER, eighths, exact_values, gains_forever

from tabrl import MDP, bellman, choice, dp, sliding
from tabrl.dp import METHODS, solve
from tabrl.errors import ModelError, NotConverged
from tabrl.types import Solution

SWEEPS = ("value_iteration", "gauss_seidel", "prioritized_sweeping")
SHORT, LONG = (
    500,
    20_000,
)  # iteration limits: of a method that was asked for, and of "auto", which must not need them all
EXITS = (1e-3, 1e-6, 1e-9)  # probabilities of leaving a block, or of the end
SPARSE_GAMMAS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-13)


def draw(rng: np.random.Generator) -> MDP:
    """A random model: gamma from .5 to .999, and .9999 in 2 % of them."""
    gamma = 0.9999 if rng.random() < 0.02 else float(1 - 10 ** rng.uniform(-3, np.log10(0.5)))
    return random_mdp(rng, gamma=gamma)


def draw_sparse(rng: Rng) -> MDP:
    """A random sparse model: at most four next states, self-loops, blocks that are hardly ever left, gamma from 0 to 1.

    S <= 12, up to 40 in 2 % of them. Half have terminal states, half masked actions. At gamma = 1 either every step may
    end (with a probability down to 1e-9), or every step costs and the first action leads to the end.
    """
    S = int(rng.integers(2, 13)) if rng.random() < 0.98 else int(rng.integers(13, 41))
    A, gamma = int(rng.integers(1, 5)), 1.0 if rng.random() < 0.15 else float(rng.choice(SPARSE_GAMMAS))
    ends = np.zeros(S, np.bool_)
    if gamma == 1.0 or rng.random() < 0.5:
        ends[-1 - rng.integers(0, max(1, S // 3)) :] = True
    P = sparse_rows(rng, S, A, 0.0 if rng.random() < 0.6 else float(rng.choice(EXITS)))
    R = random_rewards(rng, (S, A) if rng.random() < 0.7 else (S, A, S), ends)
    if gamma == 1.0 and rng.random() < 0.5:
        R = -rng.integers(1, 5, (S, A)).astype(float)
        P[:-1, 0] = 0.5 * P[:-1, 0] + 0.5 * np.eye(S, k=1)[:-1]
    elif gamma == 1.0:
        P *= 1 - (end := float(rng.choice([0.1, *EXITS])))
        P[:, :, -1] += end
    legal = np.ones((S, A), np.bool_)
    if rng.random() < 0.5:
        legal[:, 1:] = rng.random((S, A - 1)) < 0.6
    P[ends], P[~legal], R[ends] = 0.0, 0.0, 0.0
    rewards = sp.csr_array(R.reshape(S * A, S)) if R.ndim == 3 else R
    return MDP(sp.csr_array(P.reshape(S * A, S)), rewards, gamma, terminal=ends, legal=legal)


def sparse_rows(rng: Rng, S: int, A: int, leave: float) -> Any:
    """(S,A,S) distributions over one to four next states of a block; with probability `leave` any state may follow."""
    P, block = np.zeros((S, A, S)), rng.integers(0, 3 if leave else 1, S)
    for s in range(S):
        near = np.flatnonzero(block == block[s])
        for a in range(A):
            ahead = rng.choice(near, size=int(rng.integers(1, min(4, len(near)) + 1)), replace=False)
            ahead[0] = s if rng.random() < 0.3 else ahead[0]
            share = rng.integers(1, 5, len(ahead)) if rng.random() < 0.5 else rng.exponential(size=len(ahead))
            np.add.at(P[s, a], ahead, (1 - leave) * share / share.sum())
            P[s, a, rng.integers(0, S)] += leave
    return P / P.sum(axis=2, keepdims=True)


@contextmanager
def small_machine() -> Iterator[None]:
    """The way of large models on small ones: nothing is solved directly, and windows are four states wide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "DIRECT", 0)
        patch.setattr(sliding, "WIDTH", np.uint64(4))
        yield


def renamed(mdp: MDP, new: Any) -> MDP:
    """The same sparse model with state s called new[s]."""
    rows, entries, R = (new[:, None] * mdp.A + np.arange(mdp.A)).ravel(), mdp.P.tocoo(), mdp.r
    P = sp.csr_array((entries.data, (rows[entries.row], new[entries.col])), shape=mdp.P.shape)
    if sp.issparse(mdp.R):
        paid = mdp.R.tocoo()
        R = sp.csr_array((paid.data, (rows[paid.row], new[paid.col])), shape=mdp.R.shape)
    else:
        R = mdp.R[np.argsort(new)]
    old = np.argsort(new)
    return MDP(P, R, mdp.gamma, terminal=mdp.terminal[old], legal=mdp.legal[old], mu=mdp.mu[old])


def violations(mdp: MDP) -> list[str]:
    """Everything that a certificate claims about this model and that is not true."""
    return untrue(mdp, solutions(mdp), 1e-8)


def solutions(mdp: MDP) -> dict[str, Solution]:
    """The answer of every method."""
    return {method: solve(mdp, method) for method in METHODS}


def sparse_violations(mdp: MDP, rng: Rng) -> list[str]:
    """The same for some tolerance, with "auto" as on a large model, and for another order of the states."""
    tol = float(rng.choice(TOLERANCES))
    return untrue(mdp, sparse_solutions(mdp, tol, rng.permutation(mdp.S)), tol)


def sparse_solutions(mdp: MDP, tol: float, new: Any) -> dict[str, Solution]:
    """The answer of every method that has one, of "auto", and of "auto" where state s is called new[s]."""
    with small_machine():
        found = {method: x for method in METHODS if (x := answer(mdp, method, tol)) is not None}
        x = solve(renamed(mdp, new), tol=tol, limit=LONG)
        renamed_back = x._replace(V=x.V[new], Q=x.Q[new], pi=x.pi[new])
        return {**found, "auto": solve(mdp, tol=tol, limit=LONG), "auto, renamed": renamed_back}


def answer(mdp: MDP, method: str, tol: float) -> Solution | None:
    """The answer of a method; None where it says at gamma = 1 that it has none."""
    try:
        return solve(mdp, method, tol=tol, limit=SHORT)
    except NotConverged:
        assert mdp.gamma == 1.0
        return None


def untrue(mdp: MDP, found: dict[str, Solution], tol: float) -> list[str]:
    """What is not true of these solutions, or where they contradict each other."""
    V_star = exact_optimal_values(mdp)
    Q_star, loss = exact_action_values(mdp, V_star), cache(lambda pi: policy_loss(mdp, V_star, pi))
    wrong = []
    for method, x in found.items():
        if not at_most(error := distance(x.V, V_star), x.bound):
            wrong.append(f"{method}: error {float(error)} above bound {x.bound}")
        if not at_most(error := distance(x.Q.ravel(), Q_star), x.bound):
            wrong.append(f"{method}: error of Q {float(error)} above bound {x.bound}")
        if np.isfinite(x.policy_loss_bound) and not at_most(loss(x.pi.tobytes()), x.policy_loss_bound):
            wrong.append(f"{method}: policy loss {float(loss(x.pi.tobytes()))} above {x.policy_loss_bound}")
        wrong += [f"{method}: {contradiction}" for contradiction in contradictions(mdp, x, tol)]
        if method.startswith("auto") and x.status == "iteration limit":
            wrong.append(f"{method}: stopped by the iteration limit")
    for (m, x), (n, y) in combinations(found.items(), 2):
        if not at_most(max(Fraction(float(d)) for d in abs(x.V - y.V)), x.bound + y.bound):
            wrong.append(f"{m} and {n} differ by more than the sum of their bounds")
    return wrong


def contradictions(mdp: MDP, x: Solution, tol: float) -> list[str]:
    """Where a solution says of itself what does not fit together."""
    wrong = []
    if x.converged != (x.bound <= tol) or (x.status == "certified") != x.converged:
        wrong.append(f"converged is {x.converged} at bound {x.bound}, status {x.status}")
    if mdp.gamma < 1 and not (np.isfinite(x.bound) and np.isfinite(x.policy_loss_bound)):
        wrong.append(f"no certificate at gamma = {mdp.gamma}")
    return wrong


def policy_loss(mdp: MDP, V_star: Row, pi: bytes) -> Fraction:
    """Exact max (V_star - V_pi) of a policy (S,A) given by its bytes."""
    return shortfall(V_star, exact_policy_values(mdp, np.frombuffer(pi).reshape(mdp.S, mdp.A)))


def exact_action_values(mdp: MDP, V_star: Row) -> Row:
    """Q_star (S·A,), as fractions; 0 where an action is illegal."""
    P, r, gamma = tables(mdp)
    pairs = [(s, a) for s in range(mdp.S) for a in range(mdp.A)]
    return [backup(P[s][a], r[s][a], gamma, V_star) if mdp.legal[s, a] else Fraction() for s, a in pairs]


@pytest.mark.parametrize("seed", range(60))
def test_bounds_contain_the_true_error_of_every_method(seed: int) -> None:
    assert violations(draw(np.random.default_rng([2, seed]))) == []


@pytest.mark.parametrize("seed", range(36))
def test_bounds_contain_the_true_error_on_sparse_models(seed: int) -> None:
    rng = np.random.default_rng([6, seed])
    assert sparse_violations(draw_sparse(rng), rng) == []


@pytest.mark.parametrize("method", SWEEPS)
def test_every_record_of_a_sweep_method_is_certified(method: str) -> None:
    for seed in range(15):
        mdp = random_mdp(np.random.default_rng([3, seed]))
        V_star = exact_optimal_values(mdp)
        for record in list(METHODS[method](mdp, tol=1e-4))[:200]:
            assert at_most(distance(record.V, V_star), record.bound)


def test_the_textbook_bound_without_rounding_is_optimistic() -> None:
    """Why the rounding term exists: the residual alone is below the true error at a float fixed point."""
    optimistic = 0
    for seed in range(40):
        mdp = random_mdp(np.random.default_rng([4, seed]), gamma=0.9, S=8)
        V = np.zeros(mdp.S)
        for _ in range(600):
            V = bellman.optimality(mdp, V)
        error = distance(V, exact_optimal_values(mdp))
        textbook = Fraction(float(abs(bellman.optimality(mdp, V) - V).max())) / (1 - Fraction(mdp.gamma))
        optimistic += error > textbook
        assert at_most(error, bellman.certified_bound(mdp, V))
    assert optimistic >= 30


def test_certificate_is_not_wasteful() -> None:
    """Half-way through a run the bound is within a factor of the true error that the contraction explains."""
    mdp = MDP([[[0.5, 0.5]], [[0.25, 0.75]]], [1.0, 0.0], 0.9)
    V_star = exact_optimal_values(mdp)
    for record in list(dp.value_iteration(mdp, tol=1e-6))[20:]:
        assert record.bound <= 1.2 * float(distance(record.V, V_star)) / 0.9


@pytest.mark.parametrize("seed", range(25))
def test_proper_models_at_gamma_one_are_certified(seed: int) -> None:
    mdp = random_mdp(np.random.default_rng([5, seed]), gamma=1.0, proper=True)
    V_star = exact_optimal_values(mdp)
    for method in METHODS:
        x = solve(mdp, method)
        assert np.isfinite(x.bound)
        assert at_most(distance(x.V, V_star), x.bound)
        assert at_most(shortfall(V_star, exact_policy_values(mdp, x.pi)), x.policy_loss_bound)


@pytest.mark.parametrize("kind", ["costs", "gains", "rests", "mixed"])
def test_the_way_of_large_models_where_an_episode_need_not_end(kind: str) -> None:
    """gamma = 1, also where staying is free: 30 models, refused or certified as if they were large."""
    certified = 0
    for seed in range(30):
        mdp = eighths(np.random.default_rng([8, seed]), kind)
        truth = exact_values(mdp)
        with small_machine():
            try:
                found = [
                    solve(mdp, method, tol=1e-6, limit=LONG) for method in ("auto", "gauss_seidel_policy_iteration")
                ]
            except ModelError:
                assert gains_forever(mdp) or min(truth) <= NEVER
                continue
        assert all(at_most(distance(x.V, truth), x.bound) for x in found)
        assert found[0].status == "certified"
        certified += 1
    assert certified >= 8


def test_the_tolerance_floor_is_named() -> None:
    mdp = MDP(np.full((8, 1, 8), 0.125), np.arange(8.0), 0.999)
    for method in METHODS:
        x = solve(mdp, method, tol=1e-13)
        assert (x.status, x.converged) == ("rounding floor", False)
        assert 1e-13 < x.bound < 1e-7


def test_the_iteration_limit_is_named() -> None:
    mdp = MDP(np.eye(8)[:, None], np.arange(8.0), 0.99)
    x = solve(mdp, "value_iteration", limit=7)
    assert (x.status, x.iterations, x.converged) == ("iteration limit", 7, False)
    assert at_most(distance(x.V, exact_optimal_values(mdp)), x.bound)
