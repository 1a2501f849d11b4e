"""The policy and the critic that are tables: one row of logits, one value, for every prefix.

theta (N V,) the logits, prefix by prefix, or (N,) the values; N prefixes, V next tokens; B sequences of at most T
tokens.
"""

from typing import Any

import numpy as np

from tabrl import checks
from tabrl.control.acting import Rng
from tabrl.tokens.policy import Pull
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree
from tabrl.types import F, I


class TableLM:
    """Softmax over logits that are parameters themselves.

        pi(a|h) = exp(theta[h,a]) / sum over b of exp(theta[h,b])

    theta: (N,V) or (N V,) finite, uniform unless given. It can be any distribution over sequences, so whatever optimum
    it misses is the method's doing. Ledger E2.1.

    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> TableLM(task).logits()[0]
    array([[0., 0.]])
    """

    lr = 0.2

    def __init__(self, task: TokenTask, theta: Any = None) -> None:
        self.task = task
        self.tree: Tree = task.tree
        size = self.tree.N * self.tree.V
        theta = np.zeros(size) if theta is None else np.ravel(theta)
        self.theta = checks.real(theta, "theta", (size,))

    @property
    def table(self) -> F:
        """The parameters as (N,V), a view."""
        return self.theta.reshape(self.tree.N, self.tree.V)

    def logits(self) -> tuple[F, Pull]:
        """All logits (N,V); the gradient is the slope itself."""
        return self.table, np.ravel

    def rows(self, x: Rollouts) -> tuple[F, Pull]:
        """Logits (B,T,V) before each token; slopes of one prefix add up."""
        row, V = x.row, self.tree.V

        def pull(slope: F) -> F:
            at = (row[..., None] * V + np.arange(V)).ravel()
            gradient: F = np.bincount(at, weights=slope.ravel(), minlength=self.theta.size).astype(
                np.float64, copy=False
            )
            return gradient

        return self.table[row], pull

    def begin(self, prompt: I) -> tuple[F, None]:
        """Logits (B,V) of the first tokens; nothing is remembered."""
        return self.table[prompt], None

    def advance(self, state: None, token: I, row: I) -> tuple[F, None]:
        """Logits (B,V) of the prefixes."""
        return self.table[row], None

    def uniforms(self, rng: Rng, shape: tuple[int, ...]) -> F:
        """Random numbers in [0, 1)."""
        return rng.random(shape)

    def copy(self) -> "TableLM":
        """Another table with the same logits."""
        return TableLM(self.task, self.theta)

    def asarray(self, x: Any) -> Any:
        """A NumPy array."""
        return np.asarray(x)


class TableCritic:
    """A critic that is a table: one value for every prefix. theta: (N,), zeros unless given. Ledger E2.2.

    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> v, pull = TableCritic(task, [0.5]).all()
    >>> v, pull(np.array([2.0]))
    (array([0.5]), array([2.]))
    """

    lr = 0.03

    def __init__(self, task: TokenTask, theta: Any = None) -> None:
        self.task = task
        theta = np.zeros(task.N) if theta is None else np.asarray(theta)
        self.theta = checks.real(theta, "theta", (task.N,))

    def values(self, x: Rollouts) -> tuple[F, Pull]:
        """Values (B,T) of the prefix before each token; slopes of one prefix add up."""
        row, N = x.row.ravel(), self.theta.size

        def pull(slope: F) -> F:
            gradient: F = np.asarray(np.bincount(row, weights=slope.ravel(), minlength=N), np.float64)
            return gradient

        return self.theta[x.row], pull

    def all(self) -> tuple[F, Pull]:
        """All values (N,); the gradient is the slope itself."""
        return self.theta, np.ravel
