"""Grid worlds of the textbook as explicit models."""

from tabrl.envs.chains import count
from tabrl.envs.grid import FOUR, KING, KING_STAY, GridWorld, grid


def grid4x4(*, gamma: float = 1.0) -> GridWorld:
    """4x4 grid: every move costs 1 until one of two corners is reached.

        G . . .
        . . . .
        . . . .
        . . . G

    Under the uniform random policy V = 0, -14, -20, -22 / -14, -18, -20, -20 / … (figure 4.1); V* is
    minus the number of moves to the nearer corner. The start is uniform over the open cells.
    Source: Sutton & Barto (2018), example 4.1.

    >>> grid4x4()
    GridWorld(S=16, A=4, gamma=1, 2 terminal, dense)
    """
    return grid("G... .... .... ...G", rewards={}, step=-1.0, gamma=gamma, mu="uniform")


def grid5x5(*, gamma: float = 0.9) -> GridWorld:
    """5x5 grid with two jumps: A to a pays 10, B to b pays 5; pushing against the edge costs 1.

        . A . B .
        . . . . .
        . . . b .
        . . . . .
        . a . . .

    It never ends. Under the uniform random policy V(A) = 8.8 and V(B) = 5.3 (figure 3.2); V*(A) = 24.4
    and V*(B) = 19.4 (figure 3.5). The start is uniform.
    Source: Sutton & Barto (2018), examples 3.5 and 3.8.

    >>> grid5x5()
    GridWorld(S=25, A=4, gamma=0.9, 0 terminal, dense)
    """
    text = ".A.B. ..... ...b. ..... .a..."
    return grid(text, rewards={"A": 10, "B": 5}, jumps={"A": "a", "B": "b"}, bump=-1, gamma=gamma, mu="uniform")


def cliff(*, gamma: float = 1.0, slip: float = 0.0) -> GridWorld:
    """Cliff walking: a move costs 1, a step into the cliff C costs 100 and leads back to the start.

        . . . . . . . . . . . .
        . . . . . . . . . . . .
        . . . . . . . . . . . .
        S C C C C C C C C C C G

    V*(S) = -13 at gamma = 1: up, eleven times right along the edge, down. Cells of the cliff are no
    states. slip: probability of a move turned by 90 degrees.
    Source: Sutton & Barto (2018), example 6.6.

    >>> cliff()
    GridWorld(S=38, A=4, gamma=1, 1 terminal, dense)
    """
    text = "\n".join(3 * ["." * 12] + ["S" + "C" * 10 + "G"])
    return grid(text, rewards={"C": -100}, step=-1.0, falls={"C": "S"}, gamma=gamma, slip=slip)


def windy(*, gamma: float = 1.0, king: bool = False, stay: bool = False) -> GridWorld:
    """Windy grid: every move costs 1, and the wind of the column left blows upward.

        . . . . . . . . . .
        . . . . . . . . . .
        . . . . . . . . . .
        S . . . . . . G . .
        . . . . . . . . . .
        . . . . . . . . . .
        . . . . . . . . . .
        0 0 0 1 1 1 2 2 1 0

    The best way takes 15 moves, V*(S) = -15 at gamma = 1. king: eight moves, then 7 suffice; stay: a
    ninth action that leaves all to the wind (with king), which does not help.
    Source: Sutton & Barto (2018), example 6.5 and exercise 6.9.

    >>> windy().A, windy(king=True).A, windy(king=True, stay=True).A
    (4, 8, 9)
    """
    text = "\n".join(3 * ["." * 10] + ["S......G.."] + 3 * ["." * 10])
    moves = (KING_STAY if stay else KING) if king else FOUR
    return grid(text, rewards={}, step=-1.0, wind=(0, 0, 0, 1, 1, 1, 2, 2, 1, 0), moves=moves, gamma=gamma)


def windy_king(*, gamma: float = 1.0, stay: bool = False) -> GridWorld:
    """Windy grid with king's moves: every move costs 1, and the wind of the column left blows upward.

        . . . . . . . . . .
        . . . . . . . . . .
        . . . . . . . . . .
        S . . . . . . G . .
        . . . . . . . . . .
        . . . . . . . . . .
        . . . . . . . . . .
        0 0 0 1 1 1 2 2 1 0

    V*(S) = -7 at gamma = 1, with or without the ninth action `stay`.
    Source: Sutton & Barto (2018), exercise 6.9.

    >>> windy_king()
    GridWorld(S=70, A=8, gamma=1, 1 terminal, dense)
    """
    return windy(gamma=gamma, king=True, stay=stay)


def dyna_maze(*, gamma: float = 0.95) -> GridWorld:
    """Dyna maze: reward 1 on reaching the goal, 0 otherwise.

        . . . . . . . # G
        . . # . . . . # .
        S . # . . . . # .
        . . # . . . . . .
        . . . . . # . . .
        . . . . . . . . .

    The best way takes 14 moves, so V*(S) = gamma^13 = 0.5133.
    Source: Sutton & Barto (2018), example 8.1.

    >>> dyna_maze()
    GridWorld(S=47, A=4, gamma=0.95, 1 terminal, dense)
    """
    return grid(".......#G ..#....#. S.#....#. ..#...... .....#... .........", gamma=gamma)


def slippery_grid(n: int = 20, *, slip: float = 0.2, gamma: float = 0.99, sparse: bool = True) -> GridWorld:
    """Open n x n grid on slippery ground: every move costs 1 until the far corner is reached.

        S . . .
        . . . .        (n = 4)
        . . . .
        . . . G

    With probability slip a move is turned by 90 degrees. Sparse unless asked otherwise; n = 1000 gives a
    million states. At slip = 0, V*(S) = -(1 - gamma^(2n-2)) / (1 - gamma).
    Source: made for this package, to test solvers at scale.

    >>> slippery_grid(3)
    GridWorld(S=9, A=4, gamma=0.99, 1 terminal, sparse)
    """
    count("n", n, 2)
    rows = ["S" + "." * (n - 1)] + ["." * n] * (n - 2) + ["." * (n - 1) + "G"]
    return grid("\n".join(rows), rewards={}, step=-1.0, slip=slip, gamma=gamma, sparse=sparse)
