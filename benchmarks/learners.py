"""Updates per second of the prediction learners, beside a Python loop over gymnasium and a C program.

    python benchmarks/learners.py [updates]

All in one run, one thread; each figure is the median of five. The C program is built by `cc -O3` (skipped where there
is no compiler) and draws its random numbers itself; ours come from NumPy's generator, and sampler and learner are
separate kernels.
"""

import ctypes
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

import numpy as np

from tabrl import MDP, envs, prediction, sample

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


def c_program(mdp: MDP, n: int, folder: str) -> Callable[[], None] | None:
    """Run the same updates in C, or return None without a compiler."""
    if shutil.which("cc") is None:
        return None
    library = f"{folder}/td0.so"
    source = str(Path(__file__).with_name("td0.c"))
    subprocess.run(["cc", "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
    td0 = ctypes.CDLL(library).td0
    t = sample.Stream(mdp, uniform(mdp), np.random.default_rng(0)).tables
    V, seed = np.zeros(mdp.S), np.array([1, 2], np.uint64)

    def run() -> None:
        arrays = [POINTER(x.ctypes.data) for x in (t.keep, t.other, t.s_next, t.r, t.discount, t.ends)]
        start, alpha = ctypes.c_int64(int(t.start[0])), ctypes.c_double(0.1)
        sizes = POINTER(V.ctypes.data), ctypes.c_int64(n), ctypes.c_int64(t.K)
        td0(*sizes, *arrays, start, alpha, POINTER(seed.ctypes.data))

    return run


def python_loop(mdp: MDP, n: int) -> Callable[[], None]:
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


def speed(run: Callable[[], None], n: int) -> float:
    """Million updates per second, median of five after one warm-up."""
    run()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return n / statistics.median(seconds) / 1e6


def main() -> None:
    """Print one line per model and learner."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 8_192_000
    walk = envs.random_walk_19()
    models = {"19-state walk": walk, "10 x 10 grid": envs.slippery_grid(10), "200 states": random_model()}
    with tempfile.TemporaryDirectory() as folder:
        for name, mdp in models.items():
            mine = speed(ours(mdp, prediction.td0, n), n)
            loop = speed(python_loop(mdp, 20_000), 20_000)
            program = c_program(mdp, n, folder)
            beside = f", C {(c := speed(program, n)):.0f} M/s, ratio {mine / c:.2f}" if program else ""
            print(f"TD(0) on {name}: {mine:.0f} M/s{beside}; gymnasium loop {loop:.3f} M/s, {mine / loop:.0f} x")
    for learner, extra in ((prediction.n_step_td, {"n": 4}), (prediction.td_lambda, {"lam": 0.8})):
        print(f"{learner.__name__} {extra} on the walk: {speed(ours(walk, partial(learner, **extra), n), n):.0f} M/s")


if __name__ == "__main__":
    main()
