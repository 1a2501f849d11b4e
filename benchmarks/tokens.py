"""GRPO on the copy task: our table and GRU beside TRL's GRPOTrainer, in one run; and the exact gradient's time.

    pip install -e ".[bench]"
    python benchmarks/tokens.py [seeds]

The same task and batch on all sides: 8 prompts of 2 letters out of 16, G = 16 answers each, rewards 0 or 1, entropy
.03, no KL, gradients held to length 1; one thread, float32 (the table float64). Tokens/s are those drawn over the whole
step, drawing, rewards and update. Success is exact on all sides and not timed. Theirs is a Llama of two layers with 64
units, ours a GRU of 64 units or a table: what a small model saves, and a loop that is made for it. A run that never
reaches 90 % counts as at least its length.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from tabrl.envs import token_tasks
from tabrl.tokens import train
from tabrl.tokens.nets import GRU
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask

MOST = 400  # updates


class Run(NamedTuple):
    """One training: tokens per second, and updates and seconds until 90 %."""

    rate: float
    steps: float  # inf where it was never reached
    seconds: float  # then the length of the run


def ours(make: Callable[[TokenTask, Any], Any], seed: int) -> Run:
    """Train one of our policies, looking after every update, off the clock."""
    task, rng = token_tasks.copy(), np.random.default_rng(seed)
    run = train.grpo(task, make(task, rng), rng)
    spent, rates, t = 0.0, [], 0
    for x in run:
        spent += (x.t - t) / x.tokens_per_s
        rates.append(x.tokens_per_s)
        t = x.t
        if x.J >= 0.9 or x.k == MOST:
            return Run(statistics.median(rates), x.k if x.J >= 0.9 else np.inf, spent)
    raise AssertionError("a run does not end by itself")


def theirs(seed: int) -> Run:
    """Train TRL's."""
    import trl_peer

    x = trl_peer.train(token_tasks.copy(), seed, steps=MOST)
    reached = x.seconds_to()
    return Run(x.rate, x.steps_to(), reached if np.isfinite(reached) else sum(x.seconds))


def exact_times() -> None:
    """J and its gradient over 111,111 prefixes."""
    task = TokenTask("digits", tuple("0123456789"), ("x",), 6, lambda prompt, tokens: 1.0 * (tokens.sum(1) == 27))
    rng = np.random.default_rng(0)
    policies = {
        "table": TableLM(task, rng.normal(size=(task.N, task.V))),
        "GRU (64), float32": GRU(task, rng, hidden=64),
        "GRU (64), float64": GRU(task, rng, hidden=64, dtype="float64"),
    }
    for name, policy in policies.items():
        times = []
        for _ in range(7):
            start = time.perf_counter()
            logits, pull = policy.logits()
            pull(evaluate(policy.tree, log_softmax(logits)).slope)
            times.append(time.perf_counter() - start)
        print(f"exact J and gradient, {task.N} prefixes, {name}: {statistics.median(times):.3f} s")


def main() -> None:
    """Print the medians and the ratios."""
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    exact_times()
    sides: dict[str, Callable[[int], Run]] = {
        "TRL": theirs,
        "table": lambda seed: ours(lambda task, rng: TableLM(task), seed),
        "GRU": lambda seed: ours(GRU, seed),
    }
    for run in sides.values():
        run(1000)  # the first run of a process is slow
    found = {name: [run(seed) for seed in range(seeds)] for name, run in sides.items()}
    rate = {name: statistics.median(x.rate for x in runs) for name, runs in found.items()}
    seconds = {name: statistics.median(x.seconds for x in runs) for name, runs in found.items()}
    for name, runs in found.items():
        steps = ", ".join(f"{x.steps:g}" for x in runs)
        faster, sooner = rate[name] / rate["TRL"], seconds["TRL"] / seconds[name]
        print(f"{name}: {rate[name]:,.0f} tokens/s ({faster:.1f} x TRL)")
        print(f"  90 % after {seconds[name]:.3f} s ({sooner:.1f} x), {steps} updates")


if __name__ == "__main__":
    main()
