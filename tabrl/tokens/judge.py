"""The exact answers beside a run, and its records.

N prefixes, K prompts, G answers in a group; logp (N,V) a policy; p (K,) chance of an answer of the largest reward.
"""

from typing import Any, NamedTuple

import numpy as np

from tabrl import divergences
from tabrl._xp import Array
from tabrl.decisions import cosine
from tabrl.tokens.draws import Drawn
from tabrl.tokens.exact import amount, kl_rows
from tabrl.tokens.policy import Policy
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.tree import Tree
from tabrl.types import F


class TokenStep(NamedTuple):
    """A token policy after an update. J, p, kl, entropy and dead are exact; cosine and clip_fraction: of the batch."""

    k: int  # updates so far
    t: int  # tokens drawn so far
    J: float  # expected outcome
    p: F  # (K,) chance of an answer of the prompt's largest reward
    kl: float  # KL(policy || reference) per sequence, in nats
    entropy: float  # expected entropy of a token's row, in nats
    dead: int  # prompts all of whose G answers miss the largest reward with a chance above 99 %
    cosine: float  # between the last batch's estimate and the gradient of J before; nan where one is 0 (flat groups)
    clip_fraction: float  # share of the tokens used where a bound changed the gradient, a mean over epochs
    kept: float  # share of the groups drawn that were used
    length: float  # mean number of tokens of the answers used; nan where none was
    networks: int  # networks held: the policy, a critic, a reference
    passes: float  # forward passes for each token used, drawing included; inf where none was used
    tokens_per_s: float  # tokens drawn per second of drawing and updating, exact answers not timed


class Tally:
    """What is counted between two records."""

    def __init__(self, epochs: int) -> None:
        self.used: Any = 0.0
        self.answers = self.drawn = self.kept = self.batches = self.seconds = 0.0
        self.stopped: Any = 0.0
        self.networks = self.passes = 0
        self.epochs = epochs

    def add(self, drawn: Drawn, networks: int, passes: int, seconds: float) -> None:
        """Count one batch: networks held, forward passes for each token used besides drawing it, and the time."""
        self.used = self.used + drawn.x.mask.sum()
        self.answers += len(drawn.x.reward)
        self.drawn += drawn.tokens
        self.kept += drawn.kept
        self.batches += 1
        self.networks, self.passes = networks, passes
        self.seconds += seconds


class Judge:
    """Exact answers about the policies of a run.

    reference: the policy that KLs are measured to. G: answers in a group.
    """

    def __init__(self, reference: Policy, G: int) -> None:
        self.reference = log_softmax(reference.logits()[0])
        self.best = reference.asarray(best_answers(reference.task.tree))
        self.G = G

    def cosine(self, policy: Policy, estimate: Array) -> float:
        """Between an estimate (n,) of the gradient of J in the policy's parameters and the gradient itself."""
        logits, pull = policy.logits()
        exact = pull(evaluate(policy.tree, log_softmax(logits)).slope)
        return cosine(numbers(estimate), numbers(exact))

    def record(self, policy: Policy, k: int, t: int, angle: float, tally: Tally) -> TokenStep:
        """The record after an update."""
        tree, logp = policy.tree, log_softmax(policy.logits()[0])
        x = evaluate(tree, logp)
        p = numbers(evaluate(tree, logp, self.best).V[: tree.K])
        kl = amount(x.d, kl_rows(logp, self.reference)).sequence
        entropy = amount(x.d, divergences.entropy(logp)).token
        used = float(tally.used)
        return TokenStep(
            k, t, float(x.J), p, float(kl), float(entropy), int(((1 - p) ** self.G > 0.99).sum()),
            angle, float(tally.stopped) / max(used * tally.epochs, 1), tally.kept / tally.batches,
            used / tally.answers if used else np.nan, tally.networks,
            tally.passes + tally.drawn / used if used else np.inf, tally.drawn / tally.seconds,
        )  # fmt: skip


def best_answers(tree: Tree) -> F:
    """1.0 (N,V) where a sequence ends with its prompt's largest reward, else 0.0."""
    finished = np.where(tree.ends, tree.reward, -np.inf)
    levels = [tree.level(finished, t).reshape(tree.K, -1) for t in range(tree.L)]
    top = np.max([x.max(1) for x in levels], 0)
    of_row = [np.repeat(top, x.shape[1] // tree.V) for x in levels]
    return np.where(finished == np.concatenate(of_row)[:, None], 1.0, 0.0)


def numbers(x: Array) -> F:
    """A NumPy array of float64."""
    return np.asarray(x if isinstance(x, np.ndarray) else x.detach().cpu().numpy(), np.float64)
