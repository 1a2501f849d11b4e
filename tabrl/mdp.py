"""Markov decision processes as explicit arrays.

S, A numbers of states and actions; P transition probabilities; R rewards; r (S,A) expected rewards;
gamma discount; mu (S,) start distribution; terminal (S,) mask; legal (S,A) mask.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp

from tabrl import checks, model_checks, rounding
from tabrl.errors import ModelError, ShapeError
from tabrl.types import B, F, Matrix, Names


@dataclass(frozen=True, eq=False, repr=False)
class MDP:
    """A finite Markov decision process, stored as read-only arrays.

        P(s'|s,a) >= 0,  sum over s' of P(s'|s,a) = 1,  r(s,a) = sum over s' of P(s'|s,a) R(s,a,s')

    P: dense (S,A,S), or sparse (S·A,S) with row s·A + a. R: (S,) paid on leaving s, (S,A), (S,A,S),
    or sparse (S·A,S). gamma in [0,1]. mu: (S,) start distribution, uniform over the non-terminal
    states unless given. terminal: (S,) mask; V(terminal) = 0, its rows are zero or self-loops on
    input, are stored as self-loops with reward 0 and used as zero rows. legal: (S,A) mask, all
    actions unless given; rows of illegal actions are not read and are stored as zero; terminal
    states keep all actions. names: labels, `Names(states, actions)`.

    Rows whose sum is within 1e-9 of 1 (1e-5 for float32 input) are divided by it. Raises ModelError
    or ShapeError, naming the entry, for anything that is not a model.
    Source: Puterman (1994), section 2.1.

    >>> mdp = MDP(P=[[[0, 1], [1, 0]], [[0, 1], [0, 1]]], R=[[1, 0], [0, 0]], gamma=0.9, terminal=[0, 1])
    >>> mdp
    MDP(S=2, A=2, gamma=0.9, 1 terminal, dense)
    >>> mdp.r
    array([[1., 0.],
           [0., 0.]])
    """

    P: Matrix
    R: Matrix
    gamma: float
    mu: F = field(kw_only=True, default=None)  # type: ignore[arg-type]
    terminal: B = field(kw_only=True, default=None)  # type: ignore[arg-type]
    legal: B = field(kw_only=True, default=None)  # type: ignore[arg-type]
    names: Names = field(kw_only=True, default=Names())

    if TYPE_CHECKING:  # what may be passed; the fields say what is stored

        def __init__(
            self,
            P: Any,
            R: Any,
            gamma: float,
            *,
            mu: Any = None,
            terminal: Any = None,
            legal: Any = None,
            names: Any = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        P, tol = model_checks.transitions(self.P)
        S = P.shape[-1]
        A = P.shape[1] if P.ndim == 3 else P.shape[0] // S
        gamma = checks.discount(self.gamma)
        terminal = np.zeros(S, np.bool_) if self.terminal is None else checks.mask(self.terminal, "terminal", (S,))
        legal = np.ones((S, A), np.bool_) if self.legal is None else checks.mask(self.legal, "legal", (S, A))
        stuck = ~legal.any(1) & ~terminal
        if stuck.any():
            s = int(np.argmax(stuck))
            raise ModelError(
                f"legal[s={s}] is all False; every non-terminal state needs a legal action; "
                "mark the state as terminal if it ends the episode"
            )
        legal[terminal] = True
        P = model_checks.clear(P, ~legal)
        model_checks.check_rows(P, legal & ~terminal[:, None], tol)
        P = model_checks.seal_terminals(P, terminal, (S, A))
        P = checks.settle(P) if P.ndim == 2 else checks.settle(P.reshape(S * A, S)).reshape(S, A, S)
        R = model_checks.paid(model_checks.rewards(self.R, S, A, sp.issparse(P)), P, terminal, legal)
        mu = start(self.mu, terminal)
        for name, value in (("P", P), ("R", R), ("mu", mu), ("terminal", terminal), ("legal", legal)):
            object.__setattr__(self, name, frozen(value))
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "names", labels(self.names, S, A))

    def __repr__(self) -> str:
        kind = "sparse" if self.is_sparse else "dense"
        ends = int(self.terminal.sum())
        return f"{type(self).__name__}(S={self.S}, A={self.A}, gamma={self.gamma:g}, {ends} terminal, {kind})"

    @property
    def S(self) -> int:
        """Number of states."""
        return int(self.terminal.shape[0])

    @property
    def A(self) -> int:
        """Number of actions."""
        return int(self.legal.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether P is stored as CSR."""
        return bool(sp.issparse(self.P))

    @cached_property
    def rows(self) -> Matrix:
        """The (S·A,S) matrix of P in which terminal and illegal rows are zero."""
        ends = np.repeat(self.terminal, self.A)
        if not self.is_sparse:
            rows = self.P.reshape(self.S * self.A, self.S)
            return frozen(np.where(ends[:, None], 0.0, rows)) if ends.any() else rows
        if not ends.any():
            return self.P
        return frozen(model_checks.clear(self.P.copy(), ends.reshape(self.S, self.A)))

    @cached_property
    def csr(self) -> Matrix:
        """`rows` as CSR without stored zeros, whatever P is; the loops of the kernels run over it."""
        return self.rows if self.is_sparse else frozen(sp.csr_array(self.rows))

    @cached_property
    def r(self) -> F:
        """(S,A) expected reward of each state and action."""
        if self.R.ndim == 2 and not sp.issparse(self.R):
            return np.asarray(self.R)
        r: F = np.asarray(self.weighted(1).sum(axis=1), dtype=np.float64).reshape(self.S, self.A)
        r.setflags(write=False)
        return r

    @cached_property
    def R_max(self) -> float:
        """Largest |R|."""
        return float(abs(self.R.data if sp.issparse(self.R) else self.R).max(initial=0.0))

    @cached_property
    def longest_row(self) -> int:
        """Largest number of possible next states of a state and action."""
        return rounding.longest_row(self.rows)

    @cached_property
    def row_error(self) -> float:
        """Upper bound on how far the exact sum of a stored row is from 1."""
        return rounding.row_error(self.rows)

    def weighted(self, k: int) -> Matrix:
        """Return the (S·A,S) matrix of P(s'|s,a) R(s,a,s')**k, zero on terminal and illegal rows."""
        if k == 0:
            return self.rows
        if sp.issparse(self.R):
            return sp.csr_array(self.rows.multiply(self.R.power(k)))
        if self.R.ndim == 3:
            return self.rows * self.R.reshape(self.S * self.A, self.S) ** k
        scale = self.R.ravel() ** k
        return sp.csr_array(sp.diags_array(scale) @ self.rows) if self.is_sparse else self.rows * scale[:, None]

    @classmethod
    def from_transitions(
        cls, transitions: Iterable[tuple[Any, Any, Any, float, float]], gamma: float, **keywords: Any
    ) -> Self:
        """Build a model from (s, a, s_next, probability, reward) tuples.

        States and actions are integers from 0, or any hashable labels, numbered as they appear and
        kept as names; then `terminal` may list labels, and `mu` may map labels to probabilities.
        Repeated (s, a, s_next) add up, with the mean of their rewards: moments of the return are then
        those of the mean reward. A pair (s, a) without a tuple is illegal; a state without any must be
        listed in `terminal`. sparse=True stores CSR. Other keywords as in `MDP`.

        >>> m = MDP.from_transitions([("bed", "wake", "work", 1.0, 2.0)], 0.9, terminal=["work"])
        >>> m.names.states, float(m.r[0, 0])
        (('bed', 'work'), 2.0)
        """
        from tabrl.build import merge

        return cls(**merge(transitions, gamma, **keywords))

    @classmethod
    def from_gym(cls, env: Any, gamma: float = 1.0, **keywords: Any) -> Self:
        """Read the transition table of a gymnasium toy-text environment (FrozenLake, Taxi, CliffWalking).

        `env.unwrapped.P[s][a]` lists (probability, s_next, reward, terminated). Duplicates add up, with
        the mean of their rewards (moments of the return are then those of the mean reward). States entered
        with terminated=True become terminal; where a state is also entered without it, an extra terminal
        state, number S, takes the terminated entries (Taxi). The start distribution is the environment's.
        A time limit of the environment is not part of the model. Raises ModelError when there is no table.
        """
        from tabrl.build import gym_tables

        return cls(**{**gym_tables(env), "gamma": gamma, **keywords})

    @classmethod
    def from_toolbox(cls, P: Any, R: Any, gamma: float, **keywords: Any) -> Self:
        """Build a model from (A,S,S) arrays or a list of A sparse (S,S) matrices; R (S,), (S,A) or (A,S,S).

        >>> MDP.from_toolbox([[[0.5, 0.5], [0.8, 0.2]], [[0, 1], [0.1, 0.9]]], [[5, 10], [-1, 2]], 0.9)
        MDP(S=2, A=2, gamma=0.9, 0 terminal, dense)
        """
        from tabrl.build import from_action_major

        P, R = from_action_major(P, R)
        return cls(P, R, gamma, **keywords)

    @classmethod
    def normalised(cls, P: Any, R: Any, gamma: float, **keywords: Any) -> Self:
        """Build a model after dividing every row of P that has a positive sum by it.

        >>> MDP.normalised([[[1, 3]], [[0, 2]]], [0, 1], 0.5).P[0, 0]
        array([0.25, 0.75])
        """
        P, _ = model_checks.transitions(P)
        total = np.asarray(P.sum(axis=-1)).ravel()
        scale = np.where(total > 0, total, 1.0)
        if sp.issparse(P):
            P.data /= np.repeat(scale, np.diff(P.indptr))
        else:
            P = P / scale.reshape(P.shape[:2])[:, :, None]
        return cls(P, R, gamma, **keywords)

    def save(self, path: str | Path) -> None:
        """Write the model to an .npz file without pickle; the file appears whole or not at all."""
        from tabrl.files import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> "MDP":
        """Read a model written by `save`; sizes are checked before anything is allocated."""
        from tabrl.files import load

        return MDP(**load(path))


def start(mu: Any, terminal: B) -> F:
    """Return the start distribution: `mu`, or uniform over non-terminal states (over all if there is none)."""
    if mu is not None:
        return checks.distribution(mu, "mu", len(terminal))
    open_states = ~terminal if not terminal.all() else terminal
    uniform: F = open_states / open_states.sum()
    return uniform


def labels(names: Any, S: int, A: int) -> Names:
    """Check that the names, if any, are as many as the states and actions and all different."""
    if names is None:
        return Names()
    try:
        given = Names(**names) if isinstance(names, Mapping) else Names(*names)
    except TypeError:
        raise ModelError(f"names is {names!r}; Names(states, actions) is expected") from None
    out = []
    for what, n, values in (("states", S, given.states), ("actions", A, given.actions)):
        if isinstance(values, str):
            raise ModelError(f"names.{what} is {values!r}; a list of labels is expected")
        text = tuple(str(v) for v in values)
        if len(text) not in (0, n):
            raise ShapeError(f"names.{what} has {len(text)} labels; {n} (or none) are expected")
        if len(set(text)) < len(text):
            twice = next(t for i, t in enumerate(text) if t in text[:i])
            raise ModelError(f"names.{what} has {twice!r} twice; labels must differ")
        out.append(text)
    return Names(*out)


def frozen(x: Matrix) -> Matrix:
    """Make an array, or the arrays of a CSR matrix, read-only."""
    for part in (x.data, x.indices, x.indptr) if sp.issparse(x) else (x,):
        part.setflags(write=False)
    return x
