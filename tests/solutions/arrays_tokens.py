# mypy: ignore-errors
# ruff: noqa: B905
"""Solutions in array style: exercises of lessons 16 to 21."""

import numpy as np


def prefix_values(pi, reward):
    N, V = pi.shape
    values = np.zeros(N * V + 1)  # 0 where there is no row
    for h in reversed(range(N)):
        after = values[h * V + 1 : h * V + 1 + V]
        values[h] = pi[h] @ (reward[h] + after)
    return values[:N]


def token_gae(r, v, mask, lam):
    on = mask > 0
    r, v = np.where(on, r, 0.0), np.where(on, v, 0.0)
    delta = r + np.pad(v[:, 1:], ((0, 0), (0, 1))) - v
    T = r.shape[1]
    k = np.arange(T)[:, None] - np.arange(T)  # k[u, t] = u - t
    fade = np.where(k >= 0, float(lam) ** np.maximum(k, 0), 0.0)
    return np.where(on, delta @ fade, 0.0)


def group_advantages(reward, group):
    _, member = np.unique(group, return_inverse=True)
    n = np.bincount(member)
    mean = np.bincount(member, reward) / n
    centred = reward - mean[member]
    std = np.sqrt(np.bincount(member, centred**2) / (n - 1))
    flat = std < 1e-9
    return np.where(flat[member], 0.0, centred / (std[member] + 1e-4))


def grpo_loss(logp, logp_old, adv, mask, low, high):
    rho = np.exp(np.where(mask > 0, logp - logp_old, 0.0))
    A = adv[:, None]
    loss = -np.minimum(rho * A, np.clip(rho, 1 - low, 1 + high) * A)
    return (np.where(mask > 0, loss, 0.0).sum(axis=1) / mask.sum(axis=1)).mean()


def k3(logp, logp_ref):
    x = logp_ref - logp
    return np.expm1(x) - x


def best_distribution(ref, r, beta):
    weight = ref * np.exp((r - r.max()) / beta)
    return weight / weight.sum()


def process_advantages(step_reward, step_end, group, mask):
    steps = np.asarray(step_end, bool) & (mask > 0)
    normal = np.zeros(step_reward.shape)
    for label in np.unique(group):
        own = steps & (group == label)[:, None]
        x = step_reward[own]
        if len(x) > 1 and np.ptp(x) > 0:
            normal[own] = (x - x.mean()) / (x.std(ddof=1) + 1e-4)
    return np.cumsum(normal[:, ::-1], axis=1)[:, ::-1] * mask


def token_mean(x, mask, group):
    labels = np.unique(group)
    own = labels[:, None] == group
    x = np.where(mask > 0, x, 0.0)
    return np.mean((own @ x.sum(axis=1)) / (own @ mask.sum(axis=1)))


def kept_share(p, G):
    return 1 - p**G - (1 - p) ** G


def kept_groups(correct, reward, group):
    same = group[:, None] == group
    right = same @ correct
    return ((right > 0) & (right < same.sum(axis=1))).astype(float)


def overlong_penalty(length, longest, cache):
    return np.clip((longest - cache - length) / cache, -1.0, 0.0)


def count_passes(critic, kl, epochs, kept):
    return np.array([1 + critic + kl, 1 / kept + epochs + critic * (1 + epochs) + kl])


def copy_reward(prompts, completions):
    return np.array([p.removeprefix("copy:").split() == c.split() for p, c in zip(prompts, completions)], float)
