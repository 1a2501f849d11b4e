"""Blackjack with an infinite deck, as an explicit model.

Cards 1 (ace) … 10 with probabilities CARDS; a hand is (total with aces as 1, holds an ace); an ace counts
11 (it is usable) where the total stays within 21.
"""

from functools import cache

import numpy as np

from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.types import F, Names

CARDS = np.array([1.0] * 9 + [4.0]) / 13  # of card 1 … 10
ACE = 1
LOSE, DRAW, WIN = 210, 211, 212  # terminal states
STICK, HIT = 0, 1


def blackjack(*, natural: float | None = 1.0, gamma: float = 1.0) -> MDP:
    """Blackjack: hit or stick against a dealer who sticks on 17 or more; win +1, draw 0, lose -1.

        dealer  [A] [?]        state: (player's sum 12 … 21, dealer's card, usable ace or not)
        player  [7] [9]        actions: stick, hit

    States 0 … 199 are ((sum - 12) · 10 + card - 1) · 2 + usable; 200 … 209 are a natural (ace and ten)
    against each dealer's card; 210, 211, 212 are the terminal states lost, drawn, won. The deck is
    infinite and sums below 12 always hit; mu is the exact distribution of the first decision.

    natural: what a natural pays. 1 (the book, and gymnasium's sab=True): it wins unless the dealer
    has one too, then it draws; 1.5: the same with the casino's pay (gymnasium's natural=True, except
    that there it draws against a dealer's other 21); None (gymnasium's default): a natural is an
    ordinary 21 and may hit. A dealer's natural draws against any other 21 of the player. In the natural
    states only stick is legal. Dealer's hands and start are exact recursions, no sampling.
    Source: Sutton & Barto (2018), example 5.1.

    >>> blackjack()
    MDP(S=213, A=2, gamma=1, 3 terminal, dense)
    """
    if natural is not None and not natural > 0:
        raise ModelError(f"natural is {natural}; a positive pay, or None, is expected")
    P = np.zeros((213, 2, 213))
    for total in range(12, 22):
        for card in range(1, 11):
            for usable in (False, True):
                s = state(total, card, usable)
                P[s, STICK, LOSE:] = showdown(total, card)
                P[s, HIT] = hit(total, card, usable)
    for card in range(1, 11):
        tie = dealer_natural(card)
        P[199 + card, STICK, [DRAW, WIN]] = tie, 1 - tie
    legal = np.ones((213, 2), np.bool_)
    legal[200:210, HIT] = False
    R = np.zeros((213, 2, 213))
    R[:, :, LOSE], R[:, :, WIN] = -1.0, 1.0
    R[200:210, STICK, WIN] = 1.0 if natural is None else natural
    terminal = np.arange(213) >= LOSE
    R[terminal] = 0.0
    return MDP(P, R, gamma, mu=deal(natural is not None), terminal=terminal, legal=legal, names=labels())


def state(total: int, card: int, usable: bool) -> int:
    """Return the number of the state (player's sum, dealer's card, usable ace)."""
    return ((total - 12) * 10 + card - 1) * 2 + usable


def draw(total: int, usable: bool, card: int) -> tuple[int, bool]:
    """Add a card to a hand with best sum `total`; an ace that would break 21 turns from 11 to 1.

    >>> draw(13, True, 10), draw(10, False, 1)
    ((13, False), (21, True))
    """
    total, usable = (total + 11, True) if card == ACE and total <= 10 else (total + card, usable)
    return (total - 10, False) if total > 21 and usable else (total, usable)


@cache
def dealer(total: int, usable: bool) -> tuple[float, ...]:
    """Return the probabilities of the dealer's final sum: 17, 18, 19, 20, 21, bust."""
    if total >= 17:
        return tuple(float(k == min(total, 22)) for k in range(17, 23))
    ends = [np.array(dealer(*draw(total, usable, card))) for card in range(1, 11)]
    return tuple((CARDS @ np.array(ends)).tolist())


def showdown(total: int, card: int) -> F:
    """Return the probabilities (lose, draw, win) of sticking on `total` against the dealer's card."""
    ends = np.array(dealer(*draw(0, False, card)))
    final = np.array([17, 18, 19, 20, 21, 0])
    return np.array([ends[final > total].sum(), ends[final == total].sum(), ends[final < total].sum()])


def hit(total: int, card: int, usable: bool) -> F:
    """Return the distribution over states after one more card."""
    p = np.zeros(213)
    for c, weight in enumerate(CARDS, 1):
        new, still = draw(total, usable, c)
        p[LOSE if new > 21 else state(new, card, still)] += weight
    return p


def dealer_natural(card: int) -> float:
    """Return the probability that the dealer, showing `card`, holds an ace and a ten."""
    return {1: float(CARDS[9]), 10: float(CARDS[0])}.get(card, 0.0)


@cache
def first_decision(total: int, usable: bool) -> tuple[float, ...]:
    """Return the distribution of (sum 12 … 21, usable), flat, after hitting while below 12."""
    if total >= 12:
        return tuple(np.eye(20)[(total - 12) * 2 + usable].tolist())
    ends = [np.array(first_decision(*draw(total, usable, card))) for card in range(1, 11)]
    return tuple((CARDS @ np.array(ends)).tolist())


def deal(naturals: bool) -> F:
    """Return the start distribution; a natural is a state of its own, or an ordinary 21."""
    hands, lucky = np.zeros(20), 0.0
    for first, p in enumerate(CARDS, 1):
        for second, q in enumerate(CARDS, 1):
            hand = draw(*draw(0, False, first), second)
            if naturals and hand == (21, True):
                lucky += p * q
            else:
                hands += p * q * np.array(first_decision(*hand))
    mu = np.zeros(213)
    mu[:200] = (hands.reshape(10, 1, 2) * CARDS[:, None]).ravel()
    mu[200:210] = lucky * CARDS
    return mu


def labels() -> Names:
    """Name the states, such as "13 vs 10" and "soft 13 vs 10"."""
    card = ["ace", *map(str, range(2, 11))]
    hands = [f"{'soft ' if u else ''}{n} vs {c}" for n in range(12, 22) for c in card for u in (0, 1)]
    return Names((*hands, *(f"natural vs {c}" for c in card), "lost", "drawn", "won"), ("stick", "hit"))
