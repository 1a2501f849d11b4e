"""A table in which prompts share parameters, as all prompts of a network do.

own (N,V) logits of each prefix; shared (n,V) logits of the tokens so far, the same for all K prompts: N = K n.
"""

from typing import Any

import numpy as np

from tabrl import checks
from tabrl.tokens.policy import Pull
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I


class SharedLM(TableLM):
    """Softmax over the logits of a prefix plus those that all prompts share.

        logit(a | prompt, tokens) = own[prompt, tokens, a] + shared[tokens, a]

    theta: (N V + n V,) own logits, then shared ones, zeros unless given. It can write what `TableLM` can; but whatever
    one prompt learns moves all others, the least thing that a network does and a table does not. Ledger E2.1.

    >>> import numpy as np
    >>> task = TokenTask("two", ("0", "1"), ("say 0", "say 1"), 1, lambda prompt, tokens: 1.0 * prompt)
    >>> SharedLM(task, [1.0, 0.0, 0.0, 0.0, 0.0, 5.0]).logits()[0]
    array([[1., 5.],
           [0., 5.]])
    """

    def __init__(self, task: TokenTask, theta: Any = None) -> None:
        super().__init__(task)
        self.of = shared_rows(task)
        size = self.theta.size + task.N // task.K * task.V
        self.theta = np.zeros(size) if theta is None else checks.real(np.ravel(theta), "theta", (size,))

    @property
    def table(self) -> F:
        """All logits (N,V)."""
        N, V = self.tree.N, self.tree.V
        both: F = self.theta[: N * V].reshape(N, V) + self.theta[N * V :].reshape(-1, V)[self.of]
        return both

    def logits(self) -> tuple[F, Pull]:
        """All logits (N,V); a shared row gets the slopes of all its prompts."""
        return self.table, self.spread

    def rows(self, x: Rollouts) -> tuple[F, Pull]:
        """Logits (B,T,V) before each token."""
        row, V, N = x.row, self.tree.V, self.tree.N

        def pull(slope: F) -> F:
            at = (row[..., None] * V + np.arange(V)).ravel()
            return self.spread(np.asarray(np.bincount(at, weights=slope.ravel(), minlength=N * V), np.float64))

        return self.table[row], pull

    def spread(self, slope: F) -> F:
        """The gradient of theta, from slopes of all logits (N,V)."""
        V = self.tree.V
        at = (self.of[:, None] * V + np.arange(V)).ravel()
        shared = np.bincount(at, weights=slope.ravel(), minlength=self.theta.size - self.tree.N * V)
        return np.concatenate([slope.ravel(), shared])

    def copy(self) -> "SharedLM":
        """Another one with the same parameters."""
        return SharedLM(self.task, self.theta)


def shared_rows(task: TokenTask) -> I:
    """The shared row (N,) of each prefix: its tokens, whatever the prompt."""
    tree, found, first = task.tree, [], 0
    for t in range(tree.L):
        n = tree.C**t
        found.append(np.tile(np.arange(first, first + n), tree.K))
        first += n
    return np.concatenate(found)
