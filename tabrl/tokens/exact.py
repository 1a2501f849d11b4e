"""The exact answers about a policy over tokens: sums over all sequences, never samples.

task `TokenTask`, policy anything with the methods of `tokens.policy.Policy`, over the same task; K prompts, N prefixes,
V next tokens, n parameters; p (K,) mean outcomes. Answers are NumPy arrays for a table, and torch tensors on the
policy's device, in its precision, for a network. Everything is `recursion` with one reward or another: O(N V).
"""

from typing import NamedTuple

from tabrl import divergences
from tabrl._xp import Array, library
from tabrl.errors import ModelError
from tabrl.tokens import recursion, regularised
from tabrl.tokens.policy import Policy, Pull
from tabrl.tokens.recursion import Evaluation
from tabrl.tokens.regularised import Optimum
from tabrl.tokens.task import TokenTask


class Amount(NamedTuple):
    """Something that every choice of a token has, such as entropy: by prefix, and averaged in two ways."""

    rows: Array  # (N,) of the choice that follows each prefix
    sequence: Array  # expected sum along a sequence
    token: Array  # mean over all tokens of many sequences: expected sum / expected length


# ---- what it earns ----


def forward(task: TokenTask, policy: Policy) -> tuple[Evaluation, Array, Pull]:
    """One pass over all prefixes: the `Evaluation`, log-probabilities (N,V), and `pull` for gradients.

    Whoever wants several answers about one policy takes them from here. Raises ModelError for a policy of another task.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> x, logp, pull = forward(task, TableLM(task))
    >>> x.J.item(), pull(x.slope)
    (0.5, array([-0.25,  0.25]))
    """
    if policy.task is not task:
        raise ModelError(
            f"policy.task is {policy.task!r}; the task itself, {task!r}, is expected; make a policy for it"
        )
    z, pull = policy.logits()
    logp = recursion.log_softmax(z)
    return recursion.evaluate(policy.tree, logp), logp, pull


def values(task: TokenTask, policy: Policy) -> tuple[Array, Array]:
    """V (N,) and Q (N,V): the outcome to be expected from a prefix, and from a next token on. Ledger E2.1.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> values(task, TableLM(task))
    (array([0.5]), array([[0., 1.]]))
    """
    x = forward(task, policy)[0]
    return x.V, x.Q


def advantage(task: TokenTask, policy: Policy) -> Array:
    """How much better a next token is than the policy's mean, Q - V, (N,V). Ledger E2.1.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> advantage(task, TableLM(task))
    array([[-0.5,  0.5]])
    """
    x = forward(task, policy)[0]
    return x.Q - x.V[:, None]


def objective(task: TokenTask, policy: Policy) -> Array:
    """The expected outcome, J = sum over prompts of weight times V. Ledger E2.1.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> objective(task, TableLM(task)).item()
    0.5
    """
    return forward(task, policy)[0].J


def gradient(task: TokenTask, policy: Policy) -> Array:
    """The gradient of J in the policy's parameters, (n,).

        sum over h, a of d(h) pi(a|h) (Q(h,a) - V(h)) times the gradient of the logit z(h,a)

    Source: Sutton & Barto (2018), eq. 13.5, with d the probability of the prefix; ledger E2.1.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> gradient(task, TableLM(task))
    array([-0.25,  0.25])
    """
    x, _, pull = forward(task, policy)
    return pull(x.slope)


def success(task: TokenTask, policy: Policy) -> Array:
    """The mean outcome of each prompt, p (K,): for outcomes 0 and 1 the probability of success. Ledger E2.1.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> success(task, TableLM(task))
    array([0.5])
    """
    return forward(task, policy)[0].V[: task.K]


def pass_at_k(task: TokenTask, policy: Policy, k: int) -> Array:
    """Probability that at least one of k independent answers is right, for each prompt (K,).

        1 - (1 - p)^k

    k >= 1; k=1 gives `success`. Raises ModelError for outcomes other than 0 and 1, ValueError.
    Source: Chen et al. (2021), Evaluating large language models trained on code, section 2.1.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> pass_at_k(task, TableLM(task), 3)
    array([0.875])
    """
    if k < 1:
        raise ValueError(f"k is {k}; a number >= 1 is expected")
    regularised.check_binary(task.tree)
    return 1 - (1 - success(task, policy)) ** k


# ---- which sequences it writes ----


def sequence_probabilities(task: TokenTask, policy: Policy) -> Array:
    """Probability of every sequence, prompt included, at its last token: (N,V), sums to 1; 0 where none ends.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("t", ("0", "."), ("?",), 2, lambda prompt, tokens: 0.0 * prompt, eos=True)
    >>> sequence_probabilities(task, TableLM(task))
    array([[0.  , 0.5 ],
           [0.25, 0.25]])
    """
    x = forward(task, policy)[0]
    return x.d[:, None] * x.pi * policy.tree.ends


def lengths(task: TokenTask, policy: Policy) -> Array:
    """The distribution of the length of a sequence, EOS counted: (L + 1,), entry t the probability of t tokens.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("t", ("0", "."), ("?",), 2, lambda prompt, tokens: 0.0 * prompt, eos=True)
    >>> lengths(task, TableLM(task))
    array([0. , 0.5, 0.5])
    """
    q, tree = sequence_probabilities(task, policy), policy.tree
    sums = [tree.level(q, t).sum() for t in range(tree.L)]
    return library(q, "logits").stack([0 * sums[0], *sums])


def truncated(task: TokenTask, policy: Policy) -> Array:
    """Share of the sequences that the length limit ends, and not EOS; 0 for a task without EOS."""
    q, tree = sequence_probabilities(task, policy), policy.tree
    return tree.level(q, tree.L - 1)[:, : tree.C].sum() * (tree.C < tree.V)


# ---- how random it is, how far from another ----


def entropy(task: TokenTask, policy: Policy) -> Amount:
    """Entropy in nats: of the choice after each prefix, of a whole sequence given its prompt, per token.

        H(sequence) = sum over h of d(h) H(pi(.|h))

    Source: the chain rule, Cover & Thomas (2006), theorem 2.5.1; ledger E2.11.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("t", ("0", "."), ("?",), 2, lambda prompt, tokens: 0.0 * prompt, eos=True)
    >>> x = entropy(task, TableLM(task))
    >>> [round(y.item() / 0.6931471805599453, 12) for y in (x.sequence, x.token)]
    [1.5, 1.0]
    """
    x, logp, _ = forward(task, policy)
    return amount(x.d, divergences.entropy(logp))


def kl(task: TokenTask, policy: Policy, ref: Policy) -> Amount:
    """KL(pi || ref) in nats: of the choice after each prefix, of whole sequences given the prompt, per token.

        KL(sequence) = sum over h of d(h) KL(pi(.|h) || ref(.|h)),   d of the policy

    Not symmetric: kl(task, ref, policy) is the other one. Correct to the rounding of log-probabilities, never below 0.
    The distance to an optimum: kl(task, policy, TableLM(task, optimum(task, ref, beta).logp)).
    Source: the chain rule, Cover & Thomas (2006), theorem 2.5.3; ledger E2.6.

    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> kl(task, TableLM(task), TableLM(task, [0.0, 5.0])).sequence.round(6)
    np.float64(1.813568)
    """
    x, logp, _ = forward(task, policy)
    logp_ref = policy.asarray(forward(task, ref)[1])
    return amount(x.d, kl_rows(logp, logp_ref))


def kl_rows(logp: Array, logp_ref: Array) -> Array:
    """KL(pi || ref) of every row of log-probabilities (N,V): (N,)."""
    return library(logp, "logp").clip(divergences.kl_penalty(logp_ref, logp), 0.0, None)


def amount(d: Array, rows: Array) -> Amount:
    """Average rows (N,) over prefixes that occur with probabilities d (N,), which sum to the expected length."""
    sequence = (d * rows).sum()
    return Amount(rows, sequence, sequence / d.sum())


# ---- what it could be ----


def optimum(task: TokenTask, ref: Policy, beta: float) -> Optimum:
    """The policy that earns most when every nat of distance from a reference costs beta.

        max over pi of E[r] - beta KL(pi || ref)

    beta > 0. Returns an `Optimum` in arrays of the reference's kind; see `regularised.optimum`. Ledger E2.7.

    >>> import numpy as np
    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> np.exp(optimum(task, TableLM(task), 1 / np.log(3)).logp).round(12)
    array([[0.25, 0.75]])
    """
    return regularised.optimum(ref.tree, forward(task, ref)[1], beta)
