"""Reference values for benchmarks/dp.py, by code of their own: scipy and NumPy products, policy iteration.

V = high + low in two floats (S,); d = T V - V; P (S,S) transitions of the greedy policy; n longest row;
u unit of rounding of the extended precision (2^-64 on x86). Nothing of tabrl's solvers is used.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from tabrl import MDP

LONG = np.longdouble
ROUNDS = 500
WAIT = 20  # rounds without a smaller residual


class Reference(NamedTuple):
    """V_star as high + low, and a bound on its error."""

    high: Any  # (S,)
    low: Any  # (S,)
    bound: float


class Exact(NamedTuple):
    """The model's rows and rewards in extended precision."""

    rows: Any  # (S·A, S)
    r: Any  # (S, A); -inf where illegal
    terminal: Any  # (S,)
    gamma: Any


def reference(mdp: MDP, linear: str) -> Reference:
    """Policy iteration in floats, then iterative refinement with residuals in extended precision.

    Error of V: (max |TV - V| + rounding of that residual) / (1 - gamma (1 + error of the row sums)).
    """
    if sp.issparse(mdp.R) or mdp.R.ndim == 3:
        raise ValueError(f"R has shape {mdp.R.shape}; (S, A) is expected: mean rewards would be rounded")
    V = start(mdp, 1e-14 if linear == "sweeps" else 1e-10)
    x, V, low = extended(mdp), V.astype(LONG), np.inf
    actions, best, solver, waited = None, V, None, 0
    for _ in range(ROUNDS):
        d, greedy = backup(x, V, actions)
        if abs(d).max() < low:
            low, best, waited = abs(d).max(), V, 0
        else:
            waited += 1
        if low == 0 or (waited > 2 and (greedy == actions).all()) or waited > WAIT:
            break
        if actions is None or (greedy != actions).any():
            actions, solver = greedy, evaluation(mdp, greedy, linear)
            row = np.arange(mdp.S) * mdp.A + greedy
            d = step(x, V, row, greedy)
        V = V + solver(np.asarray(d, float))
    bound = certify(mdp, x, best)
    high = best.astype(float)
    return Reference(high, (best - high).astype(float), bound)


def extended(mdp: MDP) -> Exact:
    """Convert the model; terminal rows are zero and pay 0."""
    rows = (mdp.rows if mdp.is_sparse else mdp.rows.reshape(mdp.S * mdp.A, mdp.S)).astype(LONG)
    r = np.where(mdp.terminal[:, None], 0.0, np.where(mdp.legal, mdp.r, -np.inf)).astype(LONG)
    return Exact(rows, r, mdp.terminal, LONG(mdp.gamma))


def backup(x: Exact, V: Any, keep: Any) -> tuple[Any, Any]:
    """Bellman residual d (S,), and greedy actions; an action is kept unless another is better by more than rounding."""
    Q = x.r + x.gamma * (x.rows @ V).reshape(x.r.shape)
    best = Q.max(axis=1)
    greedy = Q.argmax(axis=1)
    if keep is not None:
        margin = 64 * np.finfo(LONG).eps * (1 + abs(best))
        kept = np.take_along_axis(Q, keep[:, None], 1)[:, 0]
        greedy = np.where(kept >= best - margin, keep, greedy)
    return best - V, greedy


def step(x: Exact, V: Any, row: Any, actions: Any) -> Any:
    """Residual of one policy, in extended precision."""
    r = np.take_along_axis(x.r, actions[:, None], 1)[:, 0]
    return r + x.gamma * (x.rows[row] @ V) - V


def evaluation(mdp: MDP, actions: Any, linear: str) -> Callable[[Any], Any]:
    """Return the function d -> (I - gamma P)^-1 d of the policy, in floats."""
    row = np.arange(mdp.S) * mdp.A + actions
    if linear == "dense":
        P = mdp.rows[row].toarray() if mdp.is_sparse else mdp.rows.reshape(mdp.S * mdp.A, mdp.S)[row]
        inverse = np.linalg.inv(np.eye(mdp.S) - mdp.gamma * P)
        return lambda d: inverse @ d
    P = mdp.rows[row]
    if linear == "lu":
        return splu(sp.csc_array(sp.eye_array(mdp.S) - mdp.gamma * P), permc_spec="MMD_AT_PLUS_A").solve
    return lambda d: sweep(P, mdp.gamma, d)


def sweep(P: Any, gamma: float, d: Any) -> Any:
    """Solve e = d + gamma P e by repeated products, until nothing changes by more than 1e-4 of the largest d."""
    e, tol = d.copy(), 1e-4 * abs(d).max()
    for _ in range(100_000):
        e, old = d + gamma * (P @ e), e
        if abs(e - old).max() <= tol:
            break
    return e


def start(mdp: MDP, small: float) -> Any:
    """Modified policy iteration in floats (50 products a round), until residual or span is `small` beside V and r."""
    V, rows = np.zeros(mdp.S), mdp.rows
    r = np.where(mdp.terminal[:, None], 0.0, np.where(mdp.legal, mdp.r, -np.inf))
    for _ in range(5_000):
        Q = r + mdp.gamma * (rows @ V).reshape(r.shape)
        actions = Q.argmax(axis=1)
        d = Q.max(axis=1) - V
        if min(abs(d).max(), np.ptp(d)) <= small * (1 + abs(mdp.r).max() + abs(V).max()):
            break
        P, r_pi = rows[np.arange(mdp.S) * mdp.A + actions], np.take_along_axis(r, actions[:, None], 1)[:, 0]
        V = Q.max(axis=1)
        for _ in range(50):
            V = r_pi + mdp.gamma * (P @ V)
    return V


def certify(mdp: MDP, x: Exact, V: Any) -> float:
    """Bound on max |V - V_star| in extended precision, with the rounding of the residual; V is high + low exactly."""
    d, _ = backup(x, V, None)
    n = int(np.diff(mdp.rows.indptr).max()) if mdp.is_sparse else mdp.S
    u, largest = float(np.finfo(LONG).eps), float(abs(V).max())
    rounding = 2 * (n + 4) * u * (float(abs(mdp.r).max()) + mdp.gamma * largest + largest)
    sums = np.asarray(x.rows.sum(axis=1)).ravel()
    over = max(float(sums.max()) - 1, 0.0) + n * u
    return (float(abs(d).max()) + rounding) / (1 - mdp.gamma * (1 + over)) + 2**-106 * largest


def saved(folder: Path, name: str, build: Callable[[], MDP], linear: str) -> Reference:
    """Read the reference of a model from `folder`, or compute it and write it there."""
    path = folder / f"{name}.npz"
    if not path.exists():
        found = reference(build(), linear)
        np.savez(path, high=found.high, low=found.low, bound=found.bound)
    with np.load(path) as file:
        return Reference(file["high"], file["low"], float(file["bound"]))


def error(V: Any, ref: Reference) -> float:
    """Largest distance of V from the reference."""
    return float(abs((V - ref.high) - ref.low).max())


if __name__ == "__main__":
    from dp_models import MODELS

    for key in sys.argv[2:] or MODELS:
        found = saved(Path(sys.argv[1]), key, MODELS[key].build, MODELS[key].linear)
        print(f"{key}: max |V| {abs(found.high).max():.6g}, error at most {found.bound:.1e}", flush=True)
