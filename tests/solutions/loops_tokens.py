# mypy: ignore-errors
# ruff: noqa: B905
"""Solutions in plain loops, or by another way: exercises of lessons 16 to 21."""

import math


def prefix_values(pi, reward):
    N, V = pi.shape

    def value(h):
        if h >= N:
            return 0.0
        return sum(pi[h, a] * (reward[h, a] + value(h * V + 1 + a)) for a in range(V))

    return [value(h) for h in range(N)]


def token_gae(r, v, mask, lam):
    A = []
    for i in range(len(r)):
        n, after, row = int(sum(mask[i])), 0.0, []
        for t in reversed(range(n)):
            v_next = v[i][t + 1] if t + 1 < n else 0.0
            after = r[i][t] + v_next - v[i][t] + lam * after
            row.insert(0, after)
        A.append(row + [0.0] * (len(r[i]) - n))
    return A


def group_advantages(reward, group):
    found = []
    for x, label in zip(reward, group):
        own = [y for y, other in zip(reward, group) if other == label]
        mean = sum(own) / len(own)
        std = math.sqrt(sum((y - mean) ** 2 for y in own) / (len(own) - 1))
        found.append(0.0 if max(own) == min(own) else (x - mean) / (std + 1e-4))
    return found


def grpo_loss(logp, logp_old, adv, mask, low, high):
    total = 0.0
    for i in range(len(adv)):
        sequence, n = 0.0, 0
        for t in range(len(mask[i])):
            if mask[i][t]:
                rho = math.exp(logp[i][t] - logp_old[i][t])
                bound = min(rho, 1 + high) if adv[i] > 0 else max(rho, 1 - low)
                sequence -= bound * adv[i]
                n += 1
        total += sequence / n
    return total / len(adv)


def k3(logp, logp_ref):
    found = []
    for p, q in zip(logp, logp_ref):
        ratio = math.exp(q) / math.exp(p)
        found.append(ratio - 1 - math.log(ratio))
    return found


def best_distribution(ref, r, beta):
    weights = [q * math.exp(x / beta) for q, x in zip(ref, r)]
    return [w / sum(weights) for w in weights]


def process_advantages(step_reward, step_end, group, mask):
    B, T = len(mask), len(mask[0])
    A = [[0.0] * T for _ in range(B)]
    for i in range(B):
        own = [
            step_reward[j][u]
            for j in range(B)
            for u in range(T)
            if group[j] == group[i] and step_end[j][u] and mask[j][u]
        ]
        mean = sum(own) / len(own) if own else 0.0
        flat = not own or max(own) == min(own)
        std = 0.0 if flat else math.sqrt(sum((x - mean) ** 2 for x in own) / (len(own) - 1))
        to_go = 0.0
        for t in reversed(range(T)):
            if step_end[i][t] and mask[i][t] and not flat:
                to_go += (step_reward[i][t] - mean) / (std + 1e-4)
            A[i][t] = to_go if mask[i][t] else 0.0
    return A


def token_mean(x, mask, group):
    total, count = {}, {}
    for i, label in enumerate(group.tolist()):
        for t in range(len(x[i])):
            if mask[i][t]:
                total[label] = total.get(label, 0.0) + x[i][t]
                count[label] = count.get(label, 0) + 1
    means = [total[label] / count[label] for label in total]
    return sum(means) / len(means)


def kept_share(p, G):
    """Sum over the groups that are kept."""
    return [sum(math.comb(G, K) * x**K * (1 - x) ** (G - K) for K in range(1, G)) for x in p]


def kept_groups(correct, reward, group):
    kept = []
    for label in group:
        own = [c for c, other in zip(correct, group) if other == label]
        kept.append(1 if 0 in own and 1 in own else 0)
    return kept


def overlong_penalty(length, longest, cache):
    found = []
    for n in length:
        if n <= longest - cache:
            found.append(0)
        elif n >= longest:
            found.append(-1)
        else:
            found.append(-(n - (longest - cache)) / cache)
    return found


def count_passes(critic, kl, epochs, kept):
    networks, passes = 1, 1 / kept
    if critic:
        networks += 1
        passes += 1
    if kl:
        networks += 1
        passes += 1
    for _ in range(epochs):
        passes += 2 if critic else 1
    return networks, passes


def copy_reward(prompts, completions):
    rewards = []
    for prompt, completion in zip(prompts, completions):
        asked, said = prompt.split()[1:], completion.split()
        rewards.append(1.0 if len(asked) == len(said) and all(x == y for x, y in zip(asked, said)) else 0.0)
    return rewards
