"""Networks over tokens on the CPU and on CUDA, in one run: the same losses, and tokens per second of whole updates.

    pip install -e ".[torch]"
    python benchmarks/cuda_tokens.py

The copy task of benchmarks/tokens.py: 8 prompts of 2 letters out of 16, G = 16 answers each make a batch of 128. Rates
are of GRPO's updates, drawing, rewards, gradients and Adam, in float32, for 64 and 4,096 times as many answers; medians
of 5 updates after 2 others, synchronised. "prefixes" computes the 136 prefixes of the task once for all answers, as a
policy does by itself where they are fewer than the tokens; "sequences" computes every answer, as longer tasks need.
The CPU uses all its threads.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch

from tabrl.envs import token_tasks
from tabrl.losses import aggregate, ppo_clip
from tabrl.optimise import adam
from tabrl.tokens.methods import slope, taken
from tabrl.tokens.nets import GRU, NetworkLM, Transformer
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.rollout import Rollouts, sample
from tabrl.tokens.train import GRPO, scored

POLICIES = {"GRU": GRU, "Transformer": Transformer}
BATCH = 128


def batch(policy: NetworkLM, times: int, seed: int) -> Rollouts:
    """So many times 16 answers to each prompt, in groups of 16."""
    prompt = policy.asarray(np.repeat(np.arange(policy.task.K), 16 * times))
    group = policy.asarray(np.arange(len(prompt)) // 16)
    return sample(policy, prompt, group, np.random.default_rng(seed))


def losses(policy: NetworkLM, x: Rollouts) -> tuple[Any, Any, Any]:
    """GRPO's loss, its gradient, and J, for given answers."""
    logits, pull = policy.rows(x)
    rows = log_softmax(logits)
    adv = GRPO.credit.advantages(scored(GRPO, x, None))
    loss = aggregate(ppo_clip(taken(rows, x), x.logp, adv), x.mask, how="sequence")
    J = evaluate(policy.tree, log_softmax(policy.logits()[0])).J
    return loss.cpu(), pull(slope(GRPO, x, rows, adv, None)[0]).cpu(), J.cpu()


def same_losses() -> None:
    """Largest differences between devices, for the same parameters and answers."""
    for name, make in POLICIES.items():
        for few in (True, False):
            found = []
            for device in ("cpu", "cuda"):
                policy = kind(make, few)(token_tasks.copy(), np.random.default_rng(0), device=device, head=1.0)
                if device == "cpu":
                    x = batch(policy, 1, 0)
                    moved = policy.asarray(0.3 * np.random.default_rng(1).normal(size=x.logp.shape))
                    x = x._replace(logp=x.logp + moved)  # as after updates: some are clipped
                found.append(losses(policy, Rollouts(*(policy.asarray(y) for y in x))))
            worst = [float((a - b).abs().max()) for a, b in zip(*found, strict=True)]
            text = ", ".join(f"{what} {y:.1e}" for what, y in zip(("loss", "gradient", "J"), worst, strict=True))
            print(f"{name:12} {passes(few):10} CPU and CUDA differ by: {text}")
            assert max(worst) <= 1e-5, worst


def kind(make: Any, few: bool) -> Any:
    """A policy's class, which chooses how to compute, or one that always computes every answer."""
    return make if few else type(make.__name__, (make,), {"fewer": lambda policy, tokens: False})


def passes(few: bool) -> str:
    """Name of a way to compute."""
    return "prefixes" if few else "sequences"


def rate(make: Any, few: bool, device: str, times: int) -> float:
    """Tokens per second of updates."""
    policy = kind(make, few)(token_tasks.copy(), np.random.default_rng(0), device=device)
    step, seconds = adam(policy.lr), []
    for k in range(7):
        synchronise(device)
        start = time.perf_counter()
        x = batch(policy, times, k)
        logits, pull = policy.rows(x)
        adv = GRPO.credit.advantages(scored(GRPO, x, None))
        policy.theta = step(policy.theta, -pull(slope(GRPO, x, log_softmax(logits), adv, None)[0]))
        synchronise(device)
        seconds.append(time.perf_counter() - start)
        del logits, pull
    return x.tokens.numel() / statistics.median(seconds[2:])


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the table."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if "cuda" in devices:
        print(f"CUDA device: {torch.cuda.get_device_name()}, torch {torch.__version__}")
        same_losses()
    else:
        print("no CUDA device: skipped")
        return
    print(f"{'policy':12} {'passes':10} {'answers':>8}" + "".join(f"{d + ' tokens/s':>18}" for d in devices))
    for name, make in POLICIES.items():
        for few in (True, False):
            for times in (1, 64, 4096):
                rates = [rate(make, few, device, times) for device in devices]
                print(
                    f"{name:12} {passes(few):10} {BATCH * times:8}" + "".join(f"{r:18,.0f}" for r in rates), flush=True
                )


if __name__ == "__main__":
    main()
