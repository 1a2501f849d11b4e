"""What a user's functions of policies over tokens are given in rows E2.1, E2.7, E2.8, E2.11, and must return.

pi, reward (N,V) of the prefixes of one prompt, row h V + 1 + a what follows token a of row h; ref, r (n,) of all
sequences; p (n,) chances of success, G answers in a group; V next tokens; n lengths in tokens.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np

from tabrl import rational
from tabrl.rational import Row, dot
from tabrl.types import F
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.mistakes import Mistakes, floats
from tabrl.verify.record import Case

# E2.1


@cache
def value_cases() -> list[Case]:
    """E2.1: f(pi, reward) -> V."""
    rng = np.random.default_rng(67)

    def table(N: int, V: int) -> F:
        return np.asarray((1 + rng.multinomial(32 - V, np.full(V, 1 / V), N)) / 32)

    def paid(N: int, V: int, first: int) -> F:
        """Whole numbers from row `first` on."""
        return np.where(np.arange(N)[:, None] >= first, rng.integers(-3, 4, (N, V)), 0.0)

    sure = np.eye(2)[[0, 1, 1, 0, 1, 0, 0]]
    return [
        value_case("two tokens of two, an outcome", table(3, 2), paid(3, 2, 1)),
        value_case("three tokens of two, an outcome", table(7, 2), paid(7, 2, 3)),
        value_case("two tokens of three, an outcome of 0 or 1", table(4, 3), np.sign(paid(4, 3, 1)) ** 2),
        value_case("three tokens of two, every token pays", table(7, 2), paid(7, 2, 0)),
        value_case("four tokens of two, the second one pays too", table(15, 2), paid(15, 2, 1)),
        value_case("two tokens of four, every token pays", table(5, 4), paid(5, 4, 0)),
        value_case("tokens that are certain", sure, paid(7, 2, 1)),
    ]


def value_case(name: str, pi: F, reward: F) -> Case:
    """One task; the closed form is a sum over all ways to go on."""
    p, r = rational.exact(pi), rational.exact(reward)
    exact = [go_on(p, r, h, lambda w, q: dot(w, q)) for h in range(len(p))]
    return Case(name, (pi, reward), (len(pi),), "h", floats(exact), cache(lambda: wrong_values(p, r)))


def go_on(p: list[Row], r: list[Row], h: int, mean: Callable[[Row, Row], Fraction], first: int = 1) -> Fraction:
    """What follows row h, tokens being combined by `mean`; row h V + first + a follows token a."""
    V = len(p[h])
    rows = [h * V + first + a for a in range(V)]
    after = [go_on(p, r, y, mean, first) if h < y < len(p) else ZERO for y in rows]
    return mean(p[h], [a + b for a, b in zip(r[h], after, strict=True)])


def occurs(p: list[Row], h: int) -> Fraction:
    """The chance that a prefix is written."""
    before, a = divmod(h - 1, len(p[h]))
    return ONE if h == 0 else occurs(p, before) * p[before][a]


def earned(r: list[Row], h: int) -> Fraction:
    """What was paid on the way to a prefix."""
    before, a = divmod(h - 1, len(r[h]))
    return ZERO if h == 0 else earned(r, before) + r[before][a]


def wrong_values(p: list[Row], r: list[Row]) -> Mistakes:
    """Other means, other rows, other rewards."""
    N, V = len(p), len(p[0])
    last = [h * V + 1 >= N for h in range(N)]

    def every(mean: Callable[[Row, Row], Fraction], r: list[Row] = r, first: int = 1) -> Row:
        return [go_on(p, r, h, mean, first) for h in range(N)]

    late = [row if end else [ZERO] * V for row, end in zip(r, last, strict=True)]
    tried = {
        "you take the best token instead of the mean over pi": every(lambda w, q: max(q)),
        "you use equal weights instead of pi": every(lambda w, q: sum(q, ZERO) / V),
        "you add the tokens up without pi": every(lambda w, q: sum(q, ZERO)),
        "you follow the likeliest token alone": every(lambda w, q: q[w.index(max(w))]),
        "you leave out what comes after the next token": [dot(w, q) for w, q in zip(p, r, strict=True)],
        "only the last token of the longest sequences pays": every(dot, late),
        "the rows are shifted: h V + 1 + a follows token a of row h": every(dot, r, 0),
        "you multiply by the chance that the prefix occurs": [
            occurs(p, h) * y for h, y in enumerate(every(dot))
        ],
        "you add what was paid before the prefix": [earned(r, h) + y for h, y in enumerate(every(dot))],
        "the sign is wrong": [-y for y in every(dot)],
    }  # fmt: skip
    return [(name, floats(V)) for name, V in tried.items()]


# E2.7


@cache
def optimum_cases() -> list[Case]:
    """E2.7: f(ref, r, beta) -> pi_star."""
    some, even, never = np.array([0.5, 0.25, 0.125, 0.125]), np.full(4, 0.25), np.array([0.5, 0.0, 0.25, 0.25])
    right, graded = np.array([0.0, 1.0, 0.0, 1.0]), np.array([3.0, -1.0, 0.0, 2.0])
    cheap, dear = 1 / math.log(4), 1 / math.log(1.5)  # exp(r / beta) = 4^r, 1.5^r
    return [
        optimum_case("right or wrong, beta 0.72", some, right, cheap, Fraction(4)),
        optimum_case("right or wrong, beta 2.47", some, right, dear, Fraction(3, 2)),
        optimum_case("graded outcomes, beta 0.72", some, graded, cheap, Fraction(4)),
        optimum_case("graded outcomes, beta 2.47", some, graded, dear, Fraction(3, 2)),
        optimum_case("a uniform reference", even, graded, dear, Fraction(3, 2)),
        optimum_case("a sequence that the reference never writes", never, graded, cheap, Fraction(4)),
        optimum_case("outcomes that are all the same", some, np.full(4, 2.0), cheap, Fraction(4)),
    ]  # fmt: skip


def optimum_case(name: str, ref: F, r: F, beta: float, base: Fraction) -> Case:
    """All sequences of a prompt; the closed form is ref base^r, normalised, base = exp(1 / beta)."""
    mass = [q * base ** int(y) for q, y in zip(rational.exact(ref), r, strict=True)]
    exact = floats([y / sum(mass, ZERO) for y in mass])
    return Case(name, (ref, r, beta), ref.shape, "i", exact, cache(lambda: wrong_optima(ref, r, beta)))


def wrong_optima(ref: F, r: F, beta: float) -> Mistakes:
    """Other temperatures, other references, other penalties."""

    def normal(x: F) -> F:
        return np.asarray(x / x.sum())

    best = np.where(ref > 0, r, -np.inf)
    return [
        ("beta multiplies the outcome: exp(r beta)", normal(ref * np.exp(r * beta))),
        ("you forget beta: exp(r)", normal(ref * np.exp(r))),
        ("you leave out the reference: exp(r / beta)", normal(np.exp(r / beta))),
        ("you leave out Z: it does not sum to 1", ref * np.exp(r / beta)),
        ("the sign of the outcome is wrong", normal(ref * np.exp(-r / beta))),
        ("you take the best sequence alone (beta = 0)", np.eye(len(r))[int(best.argmax())]),
        ("it is the reference (beta = inf)", ref),
        ("you add probabilities of the reference to r / beta, not their logarithms", normal(np.exp(ref + r / beta))),
        ("you multiply by 1 + r / beta instead of exp(r / beta)", normal(ref * (1 + r / beta))),
        ("it is where k3 in the loss comes to rest, beta ref / (lambda - r)", resting(ref, r, beta)),
    ]


def resting(ref: F, r: F, beta: float) -> F:
    """Beta ref / (lambda - r) with the lambda that makes it sum to 1, by bisection."""
    seen = ref > 0
    low, high = float(r[seen].max()), float(r[seen].max()) + beta
    for _ in range(200):
        y = (low + high) / 2
        low, high = (y, high) if y == low or (beta * ref[seen] / (y - r[seen])).sum() > 1 else (low, y)
    return np.where(seen, beta * ref / np.where(seen, high - r, 1.0), 0.0)


# E2.8


@cache
def share_cases() -> list[Case]:
    """E2.8: f(p, G) -> share."""
    p = np.array([0.5, 0.25, 0.0625, 0.875, 0.9375])
    found = [share_case(f"G {G}", p, G) for G in (2, 3, 4, 8, 16)]
    return [
        *found,
        share_case("prompts that are nearly dead, G 8", 2.0 ** -np.arange(5.0, 11.0), 8),
        share_case("impossible and certain, G 8", np.array([0.0, 0.5, 1.0]), 8),
    ]


def share_case(name: str, p: F, G: int) -> Case:
    """The closed form is a sum over the number of right answers, 1 to G - 1."""
    exact = [
        sum((math.comb(G, K) * y**K * (1 - y) ** (G - K) for K in range(1, G)), ZERO) for y in rational.exact(p)
    ]  # fmt: skip
    return Case(name, (p, G), p.shape, "i", floats(exact), cache(lambda: wrong_shares(p, G)))


def wrong_shares(p: F, G: int) -> Mistakes:
    """Other groups are dropped."""
    right, wrong = p**G, (1 - p) ** G
    found = [
        ("you forget groups that are all wrong: 1 - p^G", 1 - right),
        ("you forget groups that are all right: 1 - (1-p)^G, which is pass@G", 1 - wrong),
        ("you multiply the two chances, (1 - p^G)(1 - (1-p)^G); they are not independent", (1 - right) * (1 - wrong)),
        ("it is the share that is dropped", right + wrong),
        ("you use 2 p (1-p), which holds for G = 2 alone", 2 * p * (1 - p)),
        ("it is the variance of the number of right answers, G p (1-p)", G * p * (1 - p)),
        ("the share is averaged over the prompts", np.full(len(p), np.mean(1 - right - wrong))),
    ]
    if ((p > 0) & (p < 1)).all():
        found.append(("it is what is drawn for each group kept, 1 / a", 1 / (1 - right - wrong)))
    return found


# E2.11


@cache
def penalty_cases() -> list[Case]:
    """E2.11: f(length, longest, cache) -> penalty."""
    n = np.arange(1.0, 17.0)
    found = [penalty_case(f"limit {longest}, cache {cache_}", n, longest, cache_) for longest, cache_ in (
        (12, 4), (10, 2), (12, 12), (8, 5), (6, 1), (14, 8),
    )]  # fmt: skip
    return [*found, penalty_case("DAPO's, 16,384 + 4,096 tokens", 1024 * np.arange(12.0, 24.0), 20480, 4096)]


def penalty_case(name: str, n: F, longest: int, cache_: int) -> Case:
    """Some lengths; the closed form in its three parts."""
    start = longest - cache_
    parts = [
        ZERO if y <= start else Fraction(start - int(y), cache_) if y <= longest else -Fraction(1) for y in n.tolist()
    ]  # fmt: skip
    return Case(
        name, (n, longest, cache_), n.shape, "i", floats(parts), cache(lambda: wrong_penalties(n, longest, cache_))
    )


def wrong_penalties(n: F, longest: float, cache_: float) -> Mistakes:
    """Other lines, other ends."""
    start = longest - cache_
    line = (start - n) / cache_
    right = np.clip(line, -1, 0)
    return [
        ("it is not clipped at -1: the line goes on", np.minimum(line, 0)),
        ("it is not clipped at 0: short answers are rewarded", np.maximum(line, -1)),
        ("it is not clipped at all", line),
        ("the sign is wrong: a penalty is added to the reward", -right),
        ("you divide by the limit instead of the cache", np.clip((start - n) / longest, -1, 0)),
        ("you do not divide by the cache", np.clip(start - n, -cache_, 0)),
        ("it jumps to -1 at the limit, without a line", np.where(n >= longest, -1.0, 0.0)),
        ("it jumps to -1 where the line should begin", np.where(n > start, -1.0, 0.0)),
        ("the line begins at the limit instead of ending there", np.clip((longest - n) / cache_, -1, 0)),
        ("you return 1 + the penalty, a factor", 1 + right),
    ]
