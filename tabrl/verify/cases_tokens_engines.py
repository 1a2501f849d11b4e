"""What a user's counts and rewards are given in rows E2.10 and E2.12, and what they must return.

critic, kl 1 where a method has one; epochs passes over a batch; kept share of the drawn tokens that are used; prompts,
completions lists of texts.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np

from tabrl.types import F
from tabrl.verify.mistakes import Mistakes
from tabrl.verify.record import Case

# E2.10


@cache
def count_cases() -> list[Case]:
    """E2.10: f(critic, kl, epochs, kept) -> networks, passes."""
    named = {(0, 0): "no critic, no KL", (0, 1): "a KL", (1, 0): "a critic", (1, 1): "a critic and a KL"}
    return [
        count_case(f"{named[critic, kl]}, epochs {epochs}, kept {kept:g}", critic, kl, epochs, kept)
        for (critic, kl), (epochs, kept) in product(named, ((1, 1.0), (3, 0.8), (2, 0.4)))
    ]


def count_case(name: str, critic: int, kl: int, epochs: int, kept: float) -> Case:
    """One method; the closed form is a list of all passes, one by one."""
    passes = Fraction(1) / Fraction(kept)  # every token is drawn, used or not
    if kl:
        passes += 1  # the reference looks at the batch once
    if critic:
        passes += 1  # for the advantages
    for _ in range(epochs):
        passes += 2 if critic else 1
    exact = np.array([float(1 + critic + kl), float(passes)])
    x = critic, kl, epochs, kept
    return Case(name, x, (2,), "i", exact, cache(lambda: wrong_counts(*x)))


def wrong_counts(critic: int, kl: int, epochs: int, kept: float) -> Mistakes:
    """Networks that are forgotten, or asked too often."""
    networks, passes = 1 + critic + kl, 1 / kept + epochs + critic * (1 + epochs) + kl
    tried = {
        "you leave out the drawing of the tokens": (networks, passes - 1 / kept),
        "you forget the tokens of dropped groups: they are drawn too, 1 / kept": (networks, passes - 1 / kept + 1),
        "you ask the reference in every epoch: once is enough": (networks, passes + kl * (epochs - 1)),
        "you leave out the epochs of the critic: it learns in each": (networks, passes - critic * epochs),
        "you leave out the critic's look for the advantages": (networks, passes - critic),
        "you count one look of the policy, whatever the epochs": (networks, passes - epochs + 1),
        "you do not count the critic as a network": (networks - critic, passes),
        "you do not count the reference as a network": (networks - kl, passes),
        "you count the policy that drew as a network: what it said is kept instead": (networks + 1, passes),
        "networks and passes are exchanged": (passes, networks),
    }
    return [(name, np.array(y, np.float64)) for name, y in tried.items()]


# E2.12

ASKED = ["copy: a b", "copy: c c", "copy: b a", "copy: d b a", "copy: a"]


@cache
def reward_cases() -> list[Case]:
    """E2.12: f(prompts, completions) -> rewards of the copy task as text."""
    rest = ASKED[:4]
    return [
        reward_case("right answers", ASKED, ["a b", "c c", "b a", "d b a", "a"]),
        reward_case("answers to other prompts", rest, ["b a", "c c", "a b", "a b d"]),
        reward_case("answers within more words", rest, ["a b a", "say c c", "b a", "the answer is d b a"]),
        reward_case("answers that are too short", rest, ["a", "c", "", "d b"]),
        reward_case("spaces and lines around them", rest, [" a b", "c c\n", "b  a", "d b a "]),
        reward_case("half of it is right", rest, ["a c", " c c", "b a a", "d a b"]),
        reward_case("capitals, and letters without spaces", rest, ["A B", "cc", "b a", "D b A"]),
        reward_case("other capitals, and other letters without spaces", rest, ["ab", "c C", "b a", "db a"]),
        reward_case("the prompt itself", rest, ["copy: a b", "c c c", "copy: b a", "copy:"]),
    ]


def reward_case(name: str, prompts: list[str], completions: list[str]) -> Case:
    """Some answers; the closed form compares them word by word."""
    x = prompts, completions
    exact = np.array([float(asked.split()[1:] == said.split()) for asked, said in zip(*x, strict=True)])
    return Case(name, x, exact.shape, "i", exact, cache(lambda: wrong_rewards(*x)))


def wrong_rewards(prompts: list[str], completions: list[str]) -> Mistakes:
    """Verifiers that are too strict or too kind."""

    def each(f: Callable[[list[str], str], float]) -> F:
        return np.array([float(f(y.split()[1:], x)) for y, x in zip(prompts, completions, strict=True)])

    first = prompts[0].split()[1:]
    copied = np.array([float(x == y) for x, y in zip(prompts, completions, strict=True)])
    right = each(lambda y, x: y == x.split())
    return [
        ("the answer may stand anywhere within the completion", each(lambda y, x: " ".join(y) in " ".join(x.split()))),
        ("only the first words are compared", each(lambda y, x: x.split()[: len(y)] == y)),
        ("the order of the words does not matter to you", each(lambda y, x: sorted(y) == sorted(x.split()))),
        ("you pay for every right word: an outcome is right or wrong", each(share)),
        ("you compare the texts as they stand: spaces at the ends count", each(lambda y, x: " ".join(y) == x)),
        ("every completion is compared with the first prompt", each(lambda y, x: x.split() == first)),
        ("capitals are no tokens", each(lambda y, x: y == x.lower().split())),
        ("spaces are left out: words need them", each(lambda y, x: "".join(y) == "".join(x.split()))),
        ("you compare with the whole prompt", copied),
        ("a wrong answer gets 0, not -1", 2 * right - 1),
        ("right and wrong are exchanged", 1 - right),
    ]


def share(answer: list[str], said: str) -> float:
    """Words at their place."""
    return sum(a == b for a, b in zip(answer, said.split(), strict=False)) / len(answer)
