"""A model as a function that builds rows, and the checks on what it returns.

S, A states and actions; first, …, last - 1 the states asked for, n = last - first of them; P (n·A, S) CSR, row
(s - first)·A + a; r (n,A) expected rewards; terminal (n,), legal (n,A) masks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks, model_checks
from tabrl.errors import ModelError, ShapeError
from tabrl.mdp import MDP
from tabrl.types import B, F, Matrix

Build = Callable[[int, int], tuple[Any, ...]]


@dataclass(frozen=True)
class Rows:
    """A model of S states and A actions whose rows are built where they are needed.

        P, r = build(first, last)     or     P, r, terminal     or     P, r, terminal, legal

    P: CSR ((last - first)·A, S), row (s - first)·A + a the distribution over next states of action a in state s.
    r: (last - first, A) expected rewards. terminal: (last - first,) and legal: (last - first, A) masks, no state and
    every action unless given, with the meaning they have in `MDP`. `build` may be asked for any range, in pieces, and
    must give the same rows each time. gamma in [0,1). Raises ShapeError, ModelError.

    >>> def ring(first, last):
    ...     s = np.arange(first, last)
    ...     return sp.csr_array((np.ones(len(s)), (s - first, (s + 1) % 9)), (len(s), 9)), 1.0 * (s[:, None] == 0)
    >>> Rows(9, 1, 0.5, ring).A
    1
    """

    S: int
    A: int
    gamma: float
    build: Build

    def __post_init__(self) -> None:
        for name in ("S", "A"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
                raise ModelError(f"{name} is {size!r}; a whole number, 1 or more, is expected")
        object.__setattr__(self, "gamma", checks.discount(self.gamma))


class Block(NamedTuple):
    """Checked rows of the states first, …, first + n - 1; those of terminal states and illegal actions are empty."""

    P: Matrix  # (n·A, S)
    r: F  # (n,A), 0 for illegal actions
    terminal: B  # (n,)
    legal: B  # (n,A)


def rows_of(mdp: MDP) -> Rows:
    """Rows of a model that is in memory.

    >>> rows_of(MDP([[[0, 1]], [[1, 0]]], [1, 0], 0.5)).build(1, 2)[0].toarray()
    array([[1., 0.]])
    """

    def build(first: int, last: int) -> tuple[Any, ...]:
        part = slice(first, last)
        return mdp.csr[first * mdp.A : last * mdp.A], mdp.r[part], mdp.terminal[part], mdp.legal[part]

    return Rows(mdp.S, mdp.A, mdp.gamma, build)


def checked(model: Rows, first: int, last: int) -> Block:
    """Build the rows of some states; raise an error that names the state for what is not a model."""
    given = model.build(first, last)
    if not isinstance(given, tuple) or not 2 <= len(given) <= 4:
        what = f"{len(given)} items" if isinstance(given, tuple) else type(given).__name__
        raise ModelError(f"build({first}, {last}) returned {what}; (P, r), (P, r, terminal) or all four are expected")
    P, r, ends, allowed = (*given, None, None)[:4]
    shape, where = (last - first, model.A), f"[{first}:{last}]"
    terminal = np.zeros(shape[0], np.bool_) if ends is None else checks.mask(ends, "terminal" + where, shape[:1])
    legal = np.ones(shape, np.bool_) if allowed is None else checks.mask(allowed, "legal" + where, shape)
    stuck = ~legal.any(1) & ~terminal
    if stuck.any():
        s = first + int(np.argmax(stuck))
        raise ModelError(f"legal[s={s}] is all False; every non-terminal state needs a legal action")
    legal[terminal] = True
    rows = entries(P, (shape[0] * model.A, model.S), first, model.A)
    tol = checks.SUM_TOLERANCE_32 if P.dtype in (np.float32, np.float16) else checks.SUM_TOLERANCE
    rows = distributions(rows, terminal, legal, first, tol)
    return Block(rows, rewards(r, terminal, legal, first), terminal, legal)


def entries(P: Any, shape: tuple[int, int], first: int, A: int) -> Matrix:
    """Copy P as CSR with sorted columns; refuse wrong shapes, next states and numbers."""
    if not sp.issparse(P) or P.format != "csr":
        kind = f"in {P.format} format" if sp.issparse(P) else f"a {type(P).__name__}"
        raise ShapeError(f"P of build({first}, …) is {kind}; a CSR array of shape {shape} is expected")
    if P.shape != shape:
        raise ShapeError(f"P of build({first}, …) has shape {P.shape}; {shape} is expected")
    if P.dtype.kind not in "biuf":
        raise ModelError(f"P of build({first}, …) has dtype {P.dtype}; a real array is expected")
    rows = sp.csr_array((P.data, P.indices, P.indptr), shape=shape, dtype=np.float64, copy=True)
    refuse(rows, (rows.indices < 0) | (rows.indices >= shape[1]), f"a next state in 0..{shape[1] - 1}", first, A)
    refuse(rows, ~(rows.data >= 0) | (rows.data == np.inf), "a probability >= 0", first, A)
    rows.sort_indices()
    row = np.repeat(np.arange(shape[0]), np.diff(rows.indptr))
    twice = (row[1:] == row[:-1]) & (rows.indices[1:] == rows.indices[:-1])
    refuse(rows, twice, "one entry per next state; there are several here, P", first, A)
    rows.eliminate_zeros()
    return rows


def refuse(rows: Matrix, wrong: B, expected: str, first: int, A: int) -> None:
    """Raise a ModelError that names the first wrong entry by its state, action and next state."""
    if wrong.any():
        i = int(np.argmax(wrong))
        s, a = divmod(int(np.searchsorted(rows.indptr, i, side="right")) - 1, A)
        where = checks.place("P", (first + s, a, rows.indices[i]))
        raise ModelError(f"{where} is {rows.data[i]}; {expected} is expected")


def distributions(rows: Matrix, terminal: B, legal: B, first: int, tol: float) -> Matrix:
    """Empty the rows of illegal actions and terminal states; the others must be distributions."""
    rows = model_checks.clear(rows, ~legal)
    total = model_checks.row_sums(rows, legal.shape)
    wrong = legal & (abs(total - 1) > tol) & ~(terminal[:, None] & (total == 0))
    if wrong.any():
        s, a = np.argwhere(wrong)[0]
        raise ModelError(
            f"P[s={first + s}, a={a}] sums to {total[s, a]:.12g}; every row must be a distribution over next states; "
            "divide rows by their sums, or mark the action or state in legal or terminal"
        )
    own = np.repeat(first + np.arange(len(terminal)), np.diff(rows.indptr[:: legal.shape[1]]))
    away = np.repeat(terminal, np.diff(rows.indptr[:: legal.shape[1]])) & (rows.indices != own)
    refuse(rows, away, "no way out of a terminal state, a zero row or a self-loop,", first, legal.shape[1])
    return checks.settle(model_checks.clear(rows, np.repeat(terminal[:, None], legal.shape[1], 1)))


def rewards(r: Any, terminal: B, legal: B, first: int) -> F:
    """Copy r (n,A); refuse what is not finite, and rewards of terminal states."""
    shape = legal.shape
    y = np.asarray(r)
    if y.shape != shape:
        raise ShapeError(f"r of build({first}, …) has shape {y.shape}; {shape} is expected")
    if y.dtype.kind not in "biuf":
        raise ModelError(f"r of build({first}, …) has dtype {y.dtype}; a real array is expected")
    y = np.where(legal, y, 0.0).astype(np.float64)
    for wrong, expected in (
        (~np.isfinite(y), "a finite number is expected"),
        (terminal[:, None] & (y != 0), "a terminal state pays 0; put the reward on the transition that enters it"),
    ):
        if wrong.any():
            s, a = np.argwhere(wrong)[0]
            raise ModelError(f"r[s={first + s}, a={a}] is {y[s, a]}; {expected}")
    return y
