"""Correction 11: what a token's return is, what its state holds, and what is said about gamma and the end.

"s_t = prompt + generated tokens up to t, R = sum over k from t to T of r_k, accumulated return, V(s_t) = E[R | s_t]"
needs four words more:

1. A sum that begins at t is the return to go, G_t. The accumulated return of the answer begins at its first token; as a
   weight of grad log pi it has the same mean, and more variance, by what came before o_t.
2. The state of the choice of o_t is the prompt and o_<t. A state that holds o_t already is the *next* one: its value,
   with the reward of o_t, is Q(s_t, o_t). As a baseline it takes away all that o_t is judged by: Q - Q = 0.
3. gamma = 1. With gamma < 1 a reward at the end is worth gamma^(T-1): right answers are to be short, and J is another.
4. The answer ends with EOS or at the length limit, which is part of the task: V = 0 behind it, nothing is bootstrapped,
   and how many tokens are left is part of the state. As if it went on, values are others.

The lesson is text: everything that it prints is exact, but for the runs at the end of part 2.
"""

from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from tabrl.decisions import cosine
from tabrl.envs.token_tasks import parity, two_step
from tabrl.lessons._answers import every, of_tokens, push
from tabrl.summary import standard_error
from tabrl.tokens import train
from tabrl.tokens.credit import token_returns
from tabrl.tokens.draws import Groups
from tabrl.tokens.methods import Scored
from tabrl.tokens.outcomes import places
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.trace import last
from tabrl.types import F

WRONG_STATE = "to go less V(s with o_t)"
RUNS, UPDATES, SEED = 20, 100, 11


class Choice(NamedTuple):
    """One token of an answer, and what there is to know about it."""

    state: str  # prompt and tokens before it
    token: str
    r: float
    to_go: float  # G_t
    whole: float  # return of the answer, from its first token on
    V: float  # of the state
    Q: float  # of the token in that state
    A: float  # Q - V


# ---- 1 and 2: return and state ----


@cache
def steps() -> TokenTask:
    """(a + b) * c mod 3, two prompts, two tokens, a reward for each right one."""
    return two_step(3, prompts=2)


@cache
def policy() -> F:
    """Log-probabilities (N,3), not uniform."""
    return np.asarray(log_softmax(np.random.default_rng(2).normal(size=(steps().N, steps().V))))


def values(logp: F) -> tuple[F, F]:
    """V (N,) and Q (N,3) of the step rewards."""
    x = evaluate(steps().tree, logp, steps().tree.step_reward)
    return x.V, x.Q


def choices(prompt: int, tokens: tuple[int, ...]) -> list[Choice]:
    """The tokens of one answer.

    >>> [(x.state, x.token, float(x.to_go), float(x.whole)) for x in choices(0, (0, 2))]
    [('(2 + 1) * 2 mod 3 |', '0', 1.0, 1.0), ('(2 + 1) * 2 mod 3 | 0', '2', 0.0, 1.0)]
    """
    task, (V, Q), x = steps(), values(policy()), every(steps())
    i = int(((x.prompt == prompt) & (x.tokens == tokens).all(axis=1)).argmax())
    r, G = x.step_reward[i], token_returns(x.step_reward, x.mask)[i]
    return [
        Choice(task.text(prompt, tokens[:t]).strip(), task.vocab[a], r[t], G[t], G[0], V[h], Q[h, a], Q[h, a] - V[h])
        for t, (a, h) in enumerate(zip(tokens, x.row[i], strict=True))
    ]


WEIGHTS = ("to go less V(s)", "to go", "whole return", WRONG_STATE)


def weights(name: str, x: Rollouts, logp: F) -> F:
    """What multiplies grad log pi of each token, (B,T)."""
    (V, Q), G = values(logp), token_returns(x.step_reward, x.mask)
    found = {
        "to go less V(s)": G - V[x.row],
        "to go": G,
        "whole return": np.broadcast_to(G[:, :1], G.shape),
        WRONG_STATE: G - Q[x.row, x.tokens],
    }
    return np.asarray(found[name])


def moments(name: str) -> tuple[F, float]:
    """Mean (N,3) and total variance of the estimate from one answer.

    >>> [round(moments(name)[1], 4) for name in WEIGHTS[:3]]
    [0.2868, 0.4519, 0.6942]
    """
    x, pi = every(steps()), np.exp(policy())
    q = of_tokens(pi, x).prod(axis=1) * steps().weights[x.prompt]
    g = weights(name, x, policy())
    score = 1 - 2 * of_tokens(pi, x) + (pi**2).sum(axis=1)[x.row]
    mean = push(pi, x, q[:, None] * g)
    return mean, float((q[:, None] * g**2 * score).sum() - (mean**2).sum())


class Weighted(NamedTuple):
    """Credit for `train` by one of the weights, with a critic that is always exact."""

    model: TableLM
    name: str

    def advantages(self, batch: Scored) -> F:
        """Weights (B,T)."""
        return weights(self.name, batch.x, log_softmax(self.model.table))


def learnt(name: str, seed: int, updates: int) -> float:
    """Expected sum of step rewards, of 2, after learning with one of the weights."""
    model = TableLM(steps(), policy())
    run = train.grpo(steps(), model, np.random.default_rng([SEED, seed]), step=4.0, every=updates,
                     credit=Weighted(model, name), draw=Groups(8), how="constant", entropy=0.0)  # fmt: skip
    last(islice(run, 1))
    return float(evaluate(steps().tree, log_softmax(model.table), steps().tree.step_reward).J)


# ---- 3: gamma ----


@cache
def ragged() -> TokenTask:
    """Parity of one bit, answers of 1 to 6 tokens."""
    return parity(1, length=6)


def discounted(gamma: float) -> F:
    """Outcomes (N,3) seen from the first token: gamma^(T-1) for a right answer of T tokens."""
    _, length = places(ragged().tree)
    return np.asarray(ragged().tree.reward * gamma ** (length[:, None] - 1.0))


def uniform() -> F:
    """Log-probabilities (N,3) of the uniform policy."""
    return np.full((ragged().N, 3), -np.log(3.0))


def turned(gamma: float) -> tuple[float, float, float]:
    """J, the cosine of its gradient with that of gamma = 1, and d (mean length) / d (unit step) along it; uniform.

    >>> [round(y, 4) for y in turned(1.0)], [round(y, 4) for y in turned(0.8)]
    ([0.2894, 1.0, 0.3341], [0.1823, 0.9831, 0.2619])
    """
    tree, (_, length) = ragged().tree, places(ragged().tree)
    x, plain = (evaluate(tree, uniform(), discounted(g)) for g in (gamma, 1.0))
    longer = evaluate(tree, uniform(), np.where(tree.ends, length[:, None], 0.0)).slope
    return float(x.J), cosine(x.slope, plain.slope), float((x.slope * longer).sum() / np.linalg.norm(x.slope))


# ---- 4: the end ----


def by_tokens_left() -> list[tuple[int, float, float]]:
    """Tokens left, and V of prefixes that end with the right bit and with the wrong one; uniform policy, one prompt."""
    tree, found = ragged().tree, []
    V = evaluate(tree, uniform()).V
    for t in range(1, tree.L):
        level = tree.level(V, t).reshape(tree.K, -1)[0]  # prompt 0 asks for the bit 0, and prefixes end 0 1 0 1 …
        found.append((tree.L - t, float(level[0]), float(level[1])))
    return found


def without_end() -> tuple[float, float, float]:
    """V of the empty prefix, of a right and of a wrong last bit, were there no limit; uniform policy.

        V_right = 1/3 + (V_right + V_wrong)/3,   V_wrong = (V_right + V_wrong)/3,   V_empty = (V_right + V_wrong)/3

    >>> [round(v, 6) for v in without_end()]
    [0.333333, 0.666667, 0.333333]
    """
    A = np.array([[1, -1 / 3, -1 / 3], [0, 2 / 3, -1 / 3], [0, -1 / 3, 2 / 3]])
    return tuple(np.linalg.solve(A, [0, 1 / 3, 0]).tolist())


def cut_share() -> float:
    """Share of the answers of the uniform policy that the limit ends: (2/3)^6.

    >>> round(cut_share() - (2 / 3) ** 6, 12)
    0.0
    """
    tree, x = ragged().tree, evaluate(ragged().tree, uniform())
    return float((tree.level(x.d, tree.L - 1)[:, None] * tree.level(x.pi, tree.L - 1))[:, : tree.C].sum())


def main() -> None:
    """Print the lesson."""
    print("1, 2. One answer, token by token. The state holds the tokens before; with o_t in it, V would be Q:")
    print(f"   {'state':>24} o_t  r_t  G_t  whole     V      Q      Q - V   with o_t in the state")
    for x in (*choices(0, (1, 1)), *choices(0, (0, 2))):
        print(f"   {x.state:>24}   {x.token}  {x.r:.1f}  {x.to_go:.1f}   {x.whole:.1f}   {x.V:.4f} {x.Q:.4f} {x.A:7.4f}"
              f"   {x.Q:.4f} - {x.Q:.4f} = 0")  # fmt: skip
    exactly = evaluate(steps().tree, policy(), steps().tree.step_reward).slope
    for name in WEIGHTS:
        mean, variance = moments(name)
        J = np.array([learnt(name, seed, UPDATES) for seed in range(RUNS)])
        print(f"   {name:25} mean update {np.linalg.norm(mean) / np.linalg.norm(exactly):.4f} |grad J|, "
              f"{abs(mean - exactly).max():.1e} from it at most; total variance {variance:.4f}; "
              f"J after {UPDATES} updates {J.mean():.4f} ± {2 * standard_error(J):.4f} of 2")  # fmt: skip
    print(f"   J before: {evaluate(steps().tree, policy(), steps().tree.step_reward).J:.4f}")
    print("3. gamma, seen from the first token; uniform policy; right answers have 2 to 6 tokens:")
    for gamma in (1.0, 0.95, 0.8, 0.5):
        value, angle, drift = turned(gamma)
        print(f"   gamma = {gamma:<4g} J {value:.4f}; right answers are worth {gamma:.4f} … {gamma**5:.4f}; "
              f"cosine with the gradient at gamma = 1 {angle:.4f}; the mean length moves by {drift:+.4f}")  # fmt: skip
    print("4. V by tokens left, of prefixes that end with the right | wrong bit:")
    for left, right, wrong in by_tokens_left():
        print(f"   {left} left: {right:.4f} | {wrong:.4f}")
    empty, right, wrong = without_end()
    print(f"   were there no limit: {right:.4f} | {wrong:.4f}, and J {empty:.4f} instead of {turned(1.0)[0]:.4f}; "
          f"the limit ends {cut_share():.4f} of the answers, unpaid")  # fmt: skip


if __name__ == "__main__":
    main()
