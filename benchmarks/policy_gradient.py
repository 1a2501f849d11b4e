"""Time to the optimal greedy policy of a grid: our PPO beside that of Stable-Baselines3, in one run.

    pip install -e ".[fast,bench]"
    python benchmarks/policy_gradient.py [seeds]

Grids of 4 x 4 and 8 x 8 cells, -1 a step, gamma = .99, one start, no slip, episodes cut after 500 steps. Both learn
until the greedy policy is optimal, which is checked after each update and not timed; medians over seeds, each library
with the best of a few settings. Theirs is a neural network (64, 64) over gymnasium, ours a table over the model: the
difference is what a table saves on a world that fits in one. One thread.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from tabrl import MDP, chain, dp, envs
from tabrl.optimise import adam
from tabrl.ppo import ppo

OURS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "512 steps, 2 epochs, Adam .2": {"steps": 512, "epochs": 2, "minibatches": 1, "step": adam(0.2)},
}
THEIRS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "n_steps 512, lr 3e-3": {"n_steps": 512, "learning_rate": 3e-3},
    "n_steps 512, lr 3e-3, batch 128, 4 epochs": {
        "n_steps": 512, "learning_rate": 3e-3, "batch_size": 128, "n_epochs": 4
    },
}  # fmt: skip
MOST = 200_000  # steps after which a run has failed


def world(n: int) -> MDP:
    """A grid from one corner to the other."""
    rows = ["S" + "." * (n - 1), *["." * n] * (n - 2), "." * (n - 1) + "G"]
    return envs.grid(" ".join(rows), step=-1.0, rewards={}, gamma=0.99)


def optimal(mdp: MDP, scores: Any) -> bool:
    """Whether the policy that is greedy in scores (S,A) is optimal from the start; its value within 1e-6."""
    pi = np.eye(mdp.A)[np.asarray(scores).argmax(axis=1)]
    best = float(mdp.mu @ dp.solve(mdp).V)
    return bool(abs(chain.objective(chain.induce(mdp, pi), mdp.mu) - best) < 1e-6)


def ours(mdp: MDP, seed: int, settings: dict[str, Any]) -> float:
    """Seconds, exact J and cosine of every record included."""
    steps, spent, t = ppo(mdp, np.random.default_rng(seed), limit=500, **settings), 0.0, 0
    while t < MOST:
        start = time.perf_counter()
        x = next(steps)
        spent += time.perf_counter() - start
        t = x.t
        if optimal(mdp, x.theta):
            return spent
    return float("inf")


class Watch(BaseCallback):
    """Stop at the first optimal greedy policy, and take the checks off the clock."""

    def __init__(self, mdp: MDP) -> None:
        super().__init__()
        self.mdp, self.paused, self.found = mdp, 0.0, False

    def _on_rollout_start(self) -> None:
        start = time.perf_counter()
        with torch.no_grad():
            states, _ = self.model.policy.obs_to_tensor(np.arange(self.mdp.S))
            scores = self.model.policy.get_distribution(states).distribution.logits.numpy()
        self.found = self.num_timesteps > 0 and optimal(self.mdp, scores)
        self.paused += time.perf_counter() - start

    def _on_step(self) -> bool:
        return not self.found


def theirs(mdp: MDP, seed: int, settings: dict[str, Any]) -> float:
    """Seconds of `learn`, without building the model."""
    env = gymnasium.wrappers.TimeLimit(envs.TabularEnv(mdp), 500)
    learner, watch = PPO("MlpPolicy", env, gamma=0.99, seed=seed, device="cpu", **settings), Watch(mdp)
    start = time.perf_counter()
    learner.learn(MOST, callback=watch)
    seconds = time.perf_counter() - start - watch.paused
    return seconds if watch.found else float("inf")


def report(name: str, run: Callable[..., float], mdp: MDP, settings: dict[str, dict[str, Any]], seeds: int) -> float:
    """Print the medians of all settings, and return the smallest."""
    medians = []
    for label, given in settings.items():
        seconds = [run(mdp, seed, given) for seed in range(seeds)]
        lost = sum(np.isinf(seconds))
        medians.append(statistics.median(seconds))
        print(f"  {name}, {label}: median {medians[-1]:.4f} s, slowest {max(seconds):.4f} s, {lost} of {seeds} lost")
    return min(medians)


def main() -> None:
    """Print both libraries and the ratio for each grid."""
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for n in (4, 8):
        mdp = world(n)
        ours(mdp, 0, {})  # compile
        print(f"{n} x {n} grid")
        mine, other = report("tabrl", ours, mdp, OURS, 20), report("SB3", theirs, mdp, THEIRS, seeds)
        print(f"  ratio of the best medians: {other / mine:.0f}")


if __name__ == "__main__":
    main()
