"""Updates per second of the learners, beside a Python loop over gymnasium and a C program.

    python benchmarks/learners.py [updates]

All in one run, one thread; each figure is the median of five, ours and C's taken in turn. The C programs are built by
`cc -O3` (skipped where there is no compiler) and draw their random numbers themselves, by a faster generator than
NumPy's, which ours use. Prediction has sampler and learner in separate kernels. Every run starts from zeros.
"""

import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tabrl import MDP, control, envs, figures, prediction, sample, td_moments
from tabrl.control import acting
from tabrl.trace import last

POINTER = ctypes.c_void_p


def uniform(mdp: MDP) -> Any:
    """Policy with equal weight on every legal action."""
    return mdp.legal / mdp.legal.sum(axis=1, keepdims=True)


def random_model() -> MDP:
    """200 states, 4 actions, 5 successors each, 5 % of the moves end the episode."""
    rng = np.random.default_rng(0)
    S, A = 200, 4
    P = np.zeros((S + 1, A, S + 1))
    for s in range(S):
        for a in range(A):
            P[s, a, rng.choice(S, 5, replace=False)] = 0.95 * rng.dirichlet(np.ones(5))
            P[s, a, S] = 0.05
    R = np.concatenate([rng.normal(size=(S, A)), np.zeros((1, A))])
    return MDP(P, R, 0.95, terminal=np.arange(S + 1) == S, mu=np.eye(S + 1)[0])


def ours(mdp: MDP, learner: Callable[..., Any], n: int) -> Callable[[], None]:
    """Run n updates of a learner on an endless stream."""

    def run() -> None:
        stream = sample.Stream(mdp, uniform(mdp), np.random.default_rng(0))
        for x in learner(stream, alpha=0.1, V=np.zeros(mdp.S), every=n // 4):
            if x.t >= n:
                return

    return run


def acts(mdp: MDP, learner: Callable[..., Any], n: int) -> Callable[[], None]:
    """Run n steps of a control learner."""

    def run() -> None:
        next(learner(mdp, np.random.default_rng(0), alpha=0.1, eps=0.1, every=n))

    return run


def c_function(name: str, folder: str) -> Any:
    """Compile a C program of this folder and return its function, or None without a compiler."""
    if shutil.which("cc") is None:
        return None
    library = f"{folder}/{name}.so"
    source = str(Path(__file__).with_name(f"{name}.c"))
    subprocess.run(["cc", "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
    return getattr(ctypes.CDLL(library), name)


def addresses(*arrays: Any) -> list[Any]:
    """The arrays as C takes them."""
    return [POINTER(x.ctypes.data) for x in arrays]


def c_td0(mdp: MDP, n: int, folder: str) -> Callable[[], None] | None:
    """TD(0) in C."""
    td0 = c_function("td0", folder)
    if td0 is None:
        return None
    t = sample.Stream(mdp, uniform(mdp), np.random.default_rng(0)).tables
    V, seed, other, to = (
        np.zeros(mdp.S),
        np.array([1, 2], np.uint64),
        t.other.astype(np.int32),
        t.s_next.astype(np.int32),
    )

    def run() -> None:
        V[:] = 0
        arrays = addresses(t.keep, other, to, t.r, t.discount, t.ends)
        start, alpha = ctypes.c_int64(int(t.start[0])), ctypes.c_double(0.1)
        td0(*addresses(V), ctypes.c_int64(n), ctypes.c_int64(t.K), *arrays, start, alpha, *addresses(seed))

    return run


def c_q_learning(mdp: MDP, n: int, folder: str) -> Callable[[], None] | None:
    """Q-learning in C."""
    q_learning = c_function("q_learning", folder)
    if q_learning is None:
        return None
    t = acting.pairs(mdp)
    Q, seed, other, to = (
        np.zeros((mdp.S, mdp.A)),
        np.array([1, 2], np.uint64),
        t.other.astype("u4"),
        t.s_next.astype("u4"),
    )

    def run() -> None:
        Q[:] = 0
        sizes = [ctypes.c_int64(x) for x in (n, mdp.A, t.K)]
        arrays = addresses(t.keep, other, to, t.r, t.discount, t.ends)
        numbers = ctypes.c_int64(int(t.start[0])), ctypes.c_double(0.1), ctypes.c_double(0.1)
        q_learning(*addresses(Q), *sizes, *arrays, *numbers, *addresses(seed))

    return run


def python_td0(mdp: MDP, n: int) -> Callable[[], None]:
    """TD(0) as most people write it first: a loop over a gymnasium environment."""

    def run() -> None:
        env, rng = envs.TabularEnv(mdp), np.random.default_rng(0)
        pi, V = uniform(mdp), np.zeros(mdp.S)
        s, _ = env.reset(seed=0)
        for _ in range(n):
            a = rng.choice(mdp.A, p=pi[s]) if mdp.A > 1 else 0
            s_next, r, terminated, _, _ = env.step(int(a))
            V[s] += 0.1 * (r + (0.0 if terminated else mdp.gamma * V[s_next]) - V[s])
            s = env.reset()[0] if terminated else s_next

    return run


def python_q_learning(n: int) -> Callable[[], None]:
    """Q-learning as most people write it first."""

    def run() -> None:
        env, rng = gymnasium.make("FrozenLake-v1", map_name="8x8"), np.random.default_rng(0)
        Q = np.zeros((64, 4))
        s, _ = env.reset(seed=0)
        for _ in range(n):
            best = np.flatnonzero(Q[s] == Q[s].max())
            a = int(rng.integers(4) if rng.random() < 0.1 else rng.choice(best))
            s_next, r, terminated, truncated, _ = env.step(a)
            Q[s, a] += 0.1 * (float(r) + (0.0 if terminated else Q[s_next].max()) - Q[s, a])
            s = env.reset()[0] if terminated or truncated else s_next

    return run


def speeds(n: int, *runs: Callable[[], None]) -> list[float]:
    """Million updates per second of several programs, taken in turn: medians of five after one warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for k in range(6):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if k:
                times.append(time.perf_counter() - start)
    return [n / statistics.median(times) / 1e6 for times in seconds]


def compare(what: str, n: int, mine: Callable[[], None], program: Callable[[], None] | None, loop: Any, m: int) -> None:
    """Print one line: ours, C, the loop and the ratios."""
    fast = speeds(n, mine, *([program] if program else []))
    (slow,) = speeds(m, loop)
    beside = f", C {fast[1]:.0f} M/s, ratio {fast[0] / fast[1]:.2f}" if program else ""
    print(f"{what}: {fast[0]:.0f} M/s{beside}; gymnasium loop {slow:.3f} M/s, {fast[0] / slow:.0f} x")


FRESH = """
import time
start = time.perf_counter()
import numpy as np
from tabrl import envs, figures
walk = envs.random_walk_19()
figures.n_step_surface(walk, np.ones((walk.S, 1)), np.random.default_rng(0))
print(time.perf_counter() - start)
"""


def surface(folder: str) -> None:
    """Time the figure of n-step TD: warm, and in a new process that must compile everything first."""
    walk = envs.random_walk_19()
    pi = uniform(walk)
    (warm,) = speeds(1, lambda: figures.n_step_surface(walk, pi, np.random.default_rng(0)))
    fresh = {**os.environ, "NUMBA_CACHE_DIR": folder}
    new = subprocess.run([sys.executable, "-c", FRESH], env=fresh, check=True, capture_output=True, text=True)
    again = subprocess.run([sys.executable, "-c", FRESH], env=fresh, check=True, capture_output=True, text=True)
    seconds = f"new process {float(again.stdout):.2f} s, {float(new.stdout):.2f} s with an empty cache"
    print(f"figure 7.2 (100 runs x 10 episodes x 10 n x 11 alpha): {1e-6 / warm:.2f} s warm; {seconds}")


def moments() -> None:
    """Time 1,000 steps of the exact moments of TD(0) on the walk."""
    walk = envs.random_walk_19()
    pi, d = uniform(walk), np.where(walk.terminal, 0.0, 1.0)
    given = {"alpha": 0.1, "steps": 1000, "every": 1000}
    one, two = speeds(
        1,
        lambda: last(td_moments.independent_moments(walk, pi, d=d / d.sum(), **given)),
        lambda: last(td_moments.trajectory_moments(walk, pi, **given)),
    )
    print(f"exact moments of TD(0), 1,000 steps: independent {1e-6 / one:.3f} s, trajectory {1e-6 / two:.3f} s")


CONTROL: dict[str, Callable[..., Any]] = {
    "SARSA": control.sarsa,
    "expected SARSA": control.expected_sarsa,
    "double Q-learning": control.double_q_learning,
    "n-step SARSA, n = 4": partial(control.n_step_sarsa, n=4),
    "tree backup, n = 4": partial(control.tree_backup, n=4),
    "SARSA(lambda), .9": partial(control.sarsa_lambda, lam=0.9),
    "Watkins's Q(lambda), .9": partial(control.watkins_q, lam=0.9),
    "Monte Carlo control": partial(control.mc_control, limit=200),
    "Dyna-Q, 5 planned steps each": partial(control.dyna_q, planning=5),
}


def main() -> None:
    """Print one line per model and learner."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 8_192_000
    walk, lake = envs.random_walk_19(), envs.frozen_lake_8x8()
    models = {"19-state walk": walk, "10 x 10 grid": envs.slippery_grid(10), "200 states": random_model()}
    with tempfile.TemporaryDirectory() as folder:
        for name, mdp in models.items():
            program = c_td0(mdp, n, folder)
            compare(f"TD(0) on {name}", n, ours(mdp, prediction.td0, n), program, python_td0(mdp, 20_000), 20_000)
        for learner, extra in ((prediction.n_step_td, {"n": 4}), (prediction.td_lambda, {"lam": 0.8})):
            (speed,) = speeds(n, ours(walk, partial(learner, **extra), n))
            print(f"{learner.__name__} {extra} on the walk: {speed:.0f} M/s")
        program = c_q_learning(lake, n, folder)
        mine = acts(lake, control.q_learning, n)
        compare("Q-learning on FrozenLake 8 x 8", n, mine, program, python_q_learning(20_000), 20_000)
        for name, act in CONTROL.items():
            (speed,) = speeds(n // 4, acts(lake, act, n // 4))
            print(f"{name} on FrozenLake 8 x 8: {speed:.1f} M steps/s")
        surface(folder)
    moments()


if __name__ == "__main__":
    main()
