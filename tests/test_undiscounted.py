"""gamma = 1: what is solved, what is certified, and what is refused."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from tabrl import MDP
from tabrl.dp import METHODS, solve
from tabrl.errors import ModelError
from tabrl.undiscounted import quotient

NEVER = Fraction(-(10**30))  # stands for -inf


def eighths(rng: np.random.Generator, kind: str) -> MDP:
    """A small model whose probabilities are eighths (rows sum to 1 exactly), with loops that pay as `kind` says."""
    S, A = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    P = np.zeros((S, A, S))
    for s, a in product(range(S), range(A)):
        cuts = np.sort(rng.integers(0, 9, min(2, S - 1)))
        shares = np.diff(np.r_[0, cuts, 8]) / 8
        P[s, a, rng.permutation(S)[: len(shares)]] = shares
    P[:-1, 0] = 0
    P[:-1, 0, 1:] = np.eye(S - 1)  # the first action leads towards the end
    R = {
        "costs": -rng.integers(1, 5, (S, A)),
        "gains": rng.integers(0, 3, (S, A)) * (P[:, :, -1] > 0),
        "rests": rng.integers(-3, 1, (S, A)),
        "mixed": rng.integers(-2, 3, (S, A)),
    }[kind].astype(float)
    P[-1], R[-1] = 0, 0
    ends = np.arange(S) == S - 1
    return MDP(P, R, 1.0, terminal=ends)


def exact_values(mdp: MDP) -> list[Fraction]:
    """The best deterministic policy's total reward, per state; a recurrent class that costs is worth -inf."""
    S = mdp.S
    P = [[[Fraction(float(p)) for p in row] for row in rows] for rows in np.asarray(mdp.P)]
    r = [[Fraction(float(x)) for x in row] for row in mdp.r]
    best = [NEVER * 2] * S
    for actions in product(*[range(mdp.A) if not mdp.terminal[s] else [0] for s in range(S)]):
        V = policy_value(
            [P[s][a] for s, a in enumerate(actions)], [r[s][a] for s, a in enumerate(actions)], mdp.terminal
        )
        best = [max(b, v) for b, v in zip(best, V, strict=True)]
    return best


def gains_forever(mdp: MDP) -> bool:
    """Whether some deterministic policy meets a positive reward again and again."""
    for actions in product(*[range(mdp.A) if not mdp.terminal[s] else [0] for s in range(mdp.S)]):
        follows = (mdp.rows.reshape(mdp.S, mdp.A, mdp.S)[range(mdp.S), actions] > 0) | np.eye(mdp.S, dtype=bool)
        reach = np.linalg.matrix_power(follows.astype(float), mdp.S) > 0
        for s in np.flatnonzero(~mdp.terminal):
            closed = all(reach[t, s] for t in np.flatnonzero(reach[s]))
            if closed and mdp.r[s, actions[s]] > 0:
                return True
    return False


def policy_value(P: list[list[Fraction]], r: list[Fraction], terminal: Any) -> list[Fraction]:
    """Total reward of a chain: 0 in resting classes, -inf where a costly class may be entered."""
    S = len(r)
    reach = [[i == j or P[i][j] > 0 for j in range(S)] for i in range(S)]
    for k, i, j in product(range(S), range(S), range(S)):
        reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    closed = [not terminal[i] and all(reach[j][i] for j in range(S) if reach[i][j]) for i in range(S)]
    costly = [closed[i] and any(r[j] != 0 for j in range(S) if reach[i][j]) for i in range(S)]
    doomed = [any(costly[j] for j in range(S) if reach[i][j]) for i in range(S)]
    keep = [i for i in range(S) if not (terminal[i] or closed[i] or doomed[i])]
    M = [[Fraction(i == j) - P[i][j] for j in keep] + [r[i]] for i in keep]
    for c in range(len(keep)):
        pivot = next(i for i in range(c, len(keep)) if M[i][c])
        M[c], M[pivot] = M[pivot], M[c]
        M[c] = [x / M[c][c] for x in M[c]]
        for i in range(len(keep)):
            if i != c and M[i][c]:
                M[i] = [x - M[i][c] * y for x, y in zip(M[i], M[c], strict=True)]
    V = [NEVER if doomed[i] else Fraction(0) for i in range(S)]
    for i, row in zip(keep, M, strict=True):
        V[i] = row[-1]
    return V


@pytest.mark.parametrize("kind", ["costs", "gains", "rests", "mixed"])
@pytest.mark.parametrize("seed", range(40))
def test_every_method_is_certified_or_refuses(kind: str, seed: int) -> None:
    mdp = eighths(np.random.default_rng([7, seed]), kind)
    truth = exact_values(mdp)
    try:
        quotient(mdp)
    except ModelError:
        assert gains_forever(mdp) or min(truth) <= NEVER  # only a loop that pays, or the value -inf, is refused
        return
    assert not gains_forever(mdp)
    assert min(truth) > NEVER
    for method in METHODS:
        x = solve(mdp, method)
        assert x.status == "certified", (method, x.bound)
        error = max(abs(Fraction(float(v)) - t) for v, t in zip(x.V, truth, strict=True))
        assert error <= Fraction(x.bound), method
        P = [[Fraction(float(p)) for p in mdp.P[s, a]] for s, a in enumerate(x.pi.argmax(1))]
        r = [Fraction(float(mdp.r[s, a])) for s, a in enumerate(x.pi.argmax(1))]
        own = policy_value(P, r, mdp.terminal)
        assert max(t - v for t, v in zip(truth, own, strict=True)) <= Fraction(x.policy_loss_bound), method


def frozen_lake() -> MDP:
    gymnasium = pytest.importorskip("gymnasium")
    return MDP.from_gym(gymnasium.make("FrozenLake-v1"))


@pytest.mark.parametrize("method", METHODS)
def test_frozen_lake_success_is_14_17(method: str) -> None:
    """Always up never ends there, so T has infinitely many fixed points; the certificate holds all the same."""
    mdp = frozen_lake()
    x = solve(mdp, method)
    assert x.converged
    assert abs(x.V[0] - 14 / 17) <= x.bound <= 1e-8


def test_a_residual_of_zero_proves_nothing_on_frozen_lake() -> None:
    from tabrl import bellman

    mdp = frozen_lake()
    V = np.where(mdp.terminal, 0.0, 1.0)  # 'always up' keeps the value 1 in the top row for ever
    for _ in range(3000):
        V = bellman.optimality(mdp, V)
    assert abs(bellman.optimality(mdp, V) - V).max() < 1e-14
    assert abs(V[0] - 14 / 17) > 0.17
    assert bellman.certified_bound(mdp, V) == np.inf


def loop(r_stay: float, r_exit: float) -> MDP:
    return MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[r_stay, r_exit], [0, 0]], 1.0, terminal=[False, True])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("stay", "leave", "value"), [(0, 5, 5.0), (0, -5, 0.0), (-1, -5, -5.0), (-1, 2, 2.0), (0, 0, 0.0)]
)
def test_one_loop(method: str, stay: float, leave: float, value: float) -> None:
    x = solve(loop(stay, leave), method)
    assert abs(x.V[0] - value) <= x.bound <= 1e-8


@pytest.mark.parametrize("method", METHODS)
def test_infinite_values_are_refused_by_name(method: str) -> None:
    with pytest.raises(ModelError, match=r"r\[s=0, a=0\] is 1 in states 0, where a policy can stay forever"):
        solve(loop(1, 0), method)
    with pytest.raises(ModelError, match=r"V\[s=0\] is -inf at gamma = 1: no policy ends from there"):
        solve(MDP([[[1.0]]], [-1], 1.0), method)


def test_policy_in_a_collapsed_component_walks_to_the_exit() -> None:
    """Three states in a free ring, a paying exit from the third only: the policy must not circle."""
    P = np.zeros((4, 2, 4))
    for s in range(3):
        P[s, 0, (s + 1) % 3] = 1
        P[s, 1, s] = 1
    P[2, 1] = [0, 0, 0, 1]
    R = np.zeros((4, 2))
    R[2, 1] = 7
    mdp = MDP(P, R, 1.0, terminal=[0, 0, 0, 1])
    x = solve(mdp)
    assert (x.V == [7, 7, 7, 0]).all()
    assert x.pi.argmax(1).tolist()[:3] == [0, 0, 1]
    assert x.policy_loss_bound < 1e-12
