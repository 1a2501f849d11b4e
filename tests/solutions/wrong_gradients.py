# mypy: ignore-errors
"""Typical mistakes, lessons 9 to 21: EXERCISE__NAME, and in the docstring words of what the grader must say."""

import numpy as np


def returns_from(r, discount, end=0.0):
    G, after = np.zeros(len(r)), end
    for t in reversed(range(len(r))):
        after = G[t] = r[t] + discount[t] * after
    return G


def softmax(x):
    y = np.exp(x - x.max())
    return y / y.sum()


def policy_gradient__no_visits(P, r, gamma, mu, theta):
    """leave out the visits"""
    pi = np.array([softmax(x) for x in theta])
    V = np.linalg.solve(np.eye(len(mu)) - gamma * np.einsum("sa,sax->sx", pi, P), (pi * r).sum(axis=1))
    return pi * (r + gamma * P @ V - V[:, None])


def estimated(pi, s, a, r, discount, x, fades):
    g = np.zeros_like(pi)
    for t in range(len(r)):
        g[s[t]] += fades[t] * (np.eye(pi.shape[1])[a[t]] - pi[s[t]]) * x[t]
    return g


def fades_of(discount):
    return np.cumprod([1.0, *discount[:-1]])


def reinforce__whole(pi, s, a, r, discount, baseline):
    """return of the whole episode, each step with its own baseline"""
    G = returns_from(r, discount)
    return estimated(pi, s, a, r, discount, G[0] - baseline[s[:-1]], fades_of(discount))


def reinforce__mean_times_sum(pi, s, a, r, discount, baseline):
    """mean of the scores is multiplied by the sum of the rewards"""
    g = np.zeros_like(pi)
    for t in range(len(r)):
        g[s[t]] += (np.eye(pi.shape[1])[a[t]] - pi[s[t]]) / len(r)
    return g * r.sum()


def reinforce__sign(pi, s, a, r, discount, baseline):
    """the sign is wrong"""
    x = returns_from(r, discount) - baseline[s[:-1]]
    return -estimated(pi, s, a, r, discount, x, fades_of(discount))


def reinforce__fade(pi, s, a, r, discount, baseline):
    """gamma^t is missing"""
    return estimated(pi, s, a, r, discount, returns_from(r, discount) - baseline[s[:-1]], np.ones(len(r)))


def reinforce__action(pi, s, a, r, discount, baseline):
    """the baseline depends on the action"""
    return estimated(pi, s, a, r, discount, returns_from(r, discount) - baseline[a], fades_of(discount))


def leave_one_out__in_sample(pi, a, r):
    """contains the episode's own reward"""
    return ((r - r.mean())[:, None] * (np.eye(len(pi))[a] - pi)).mean(axis=0)


def leave_one_out__action(pi, a, r):
    """the baseline depends on the action"""
    b = np.array([r[a == x].mean() for x in a])
    return ((r - b)[:, None] * (np.eye(len(pi))[a] - pi)).mean(axis=0)


def actor_critic__no_bootstrap(theta, V, s, a, r, discount, alpha, beta):
    """there is no bootstrap"""
    fade = 1.0
    for t in range(len(r)):
        delta = r[t] - V[s[t]]
        V[s[t]] += beta * delta
        theta[s[t]] += alpha * fade * delta * (np.eye(theta.shape[1])[a[t]] - softmax(theta[s[t]]))
        fade *= discount[t]
    return theta


def attached(reaches):
    def actor_critic(theta, V, s, a, r, discount, alpha, beta):
        fade = 1.0
        for t in range(len(r)):
            pi = softmax(theta[s[t]])
            delta = r[t] + discount[t] * V[s[t + 1]] - V[s[t]]
            slope = np.zeros(len(V))  # of the actor's loss -fade log pi delta with respect to V
            slope[s[t]] += fade * np.log(pi[a[t]])
            slope[s[t + 1]] -= reaches * fade * np.log(pi[a[t]]) * discount[t]
            slope[s[t]] -= delta  # of the critic's loss
            V = V - beta * slope
            theta[s[t]] += alpha * fade * delta * (np.eye(theta.shape[1])[a[t]] - pi)
            fade *= discount[t]
        return theta

    return actor_critic


def actor_critic__attached(*x):
    """not detached"""
    return attached(1.0)(*x)


def actor_critic__half_attached(*x):
    """not detached"""
    return attached(0.0)(*x)


def gae__next_discount(r, discount, v, lam):
    """the discount of the next step"""
    shifted = np.append(discount[1:], 0.0)
    return returns_from(r + shifted * v[1:] - v[:-1], lam * shifted)


def gae__truncation(r, discount, v, lam):
    """treat a time limit as an end"""
    discount[-1] = 0.0
    return returns_from(r + discount * v[1:] - v[:-1], lam * discount)


def gae__end_alone(r, discount, v, lam):
    """a constant gamma but for the last step"""
    last = discount[-1]
    discount = np.full(len(r), discount.max())
    discount[-1] = last
    return returns_from(r + discount * v[1:] - v[:-1], lam * discount)


def gae__uncut(r, discount, v, lam):
    """without the discount"""
    return returns_from(r + discount * v[1:] - v[:-1], np.full(len(r), lam))


def gae__constant(r, discount, v, lam):
    """the recursion has a constant gamma"""
    return returns_from(r + discount * v[1:] - v[:-1], np.full(len(r), lam * discount.max()))


def gae__no_discount(r, discount, v, lam):
    """leave the discount out altogether"""
    return returns_from(r + v[1:] - v[:-1], np.full(len(r), lam))


def critic_target__advantage(r, discount, v, lam):
    """you return the advantages"""
    return returns_from(r + discount * v[1:] - v[:-1], lam * discount)


def critic_target__next_value(r, discount, v, lam):
    """you add v[t+1]"""
    return returns_from(r + discount * v[1:] - v[:-1], lam * discount) + v[1:]


def critic_target__end_alone(r, discount, v, lam):
    """a constant gamma but for the last step"""
    last = discount[-1]
    discount = np.full(len(r), discount.max())
    discount[-1] = last
    return v[:-1] + returns_from(r + discount * v[1:] - v[:-1], lam * discount)


def critic_target__uncut(r, discount, v, lam):
    """without the discount"""
    return v[:-1] + returns_from(r + discount * v[1:] - v[:-1], np.full(len(r), lam))


def critic_target__constant(r, discount, v, lam):
    """the recursion has a constant gamma"""
    return v[:-1] + returns_from(r + discount * v[1:] - v[:-1], np.full(len(r), lam * discount.max()))


def critic_target__no_discount(r, discount, v, lam):
    """leave the discount out altogether"""
    return v[:-1] + returns_from(r + v[1:] - v[:-1], np.full(len(r), lam))


def per_decision_returns__inverted(r, discount, rho):
    """upside down"""
    rho = np.divide(1.0, rho, out=np.zeros(len(rho)), where=rho > 0)
    return returns_from(rho * r, rho * discount)


def per_decision_returns__inside(r, discount, rho):
    """but not the reward itself"""
    return returns_from(r, rho * discount)


def per_decision_returns__order(r, discount, rho):
    """in the wrong order"""
    later = np.cumprod(rho[::-1])[::-1]
    return returns_from(later * r, discount)


def ppo_clip__min_first(logp, logp_old, adv, low, high):
    """before multiplying by A"""
    rho = np.exp(logp - logp_old)
    return -np.minimum(rho, np.clip(rho, 1 - low, 1 + high)) * adv


def ppo_clip__above(logp, logp_old, adv, low, high):
    """on one side alone, at 1 + high"""
    rho = np.exp(logp - logp_old)
    return -np.minimum(rho * adv, np.minimum(rho, 1 + high) * adv)


def ppo_clip__below(logp, logp_old, adv, low, high):
    """on one side alone, at 1 - low"""
    rho = np.exp(logp - logp_old)
    return -np.minimum(rho * adv, np.maximum(rho, 1 - low) * adv)


def ppo_clip__no_ratio(logp, logp_old, adv, low, high):
    """always 1"""
    rho = np.exp(logp - logp)
    return -np.minimum(rho * adv, np.clip(rho, 1 - low, 1 + high) * adv)


def ppo_clip__log(logp, logp_old, adv, low, high):
    """log pi multiplies"""
    rho = np.exp(logp - logp_old)
    return -np.minimum(rho * adv * logp, np.clip(rho, 1 - low, 1 + high) * adv * logp)


def kl__reversed(pi_old, pi_new):
    """the direction is reversed"""
    return (pi_new * np.log(pi_new / np.maximum(pi_old, 1e-12))).sum(axis=1)


def k3__sign(logp, logp_ref):
    """the sign of the logarithm is wrong"""
    x = logp_ref - logp
    return np.exp(x) - 1 + x


def k3__direction(logp, logp_ref):
    """the direction is reversed"""
    x = logp - logp_ref
    return np.exp(x) - 1 - x


def group_advantages__batch(reward, group):
    """those of the batch instead of the group"""
    return (reward - reward.mean()) / (reward.std(ddof=1) + 1e-4)


def group_advantages__ddof(reward, group):
    """the population's std"""
    A = np.zeros(len(reward))
    for g in set(group.tolist()):
        x = reward[group == g]
        A[group == g] = (x - x.mean()) / (x.std() + 1e-4) if np.ptp(x) > 0 else 0.0
    return A


def grpo_loss__sum(logp, logp_old, adv, mask, low, high):
    """add the tokens of a sequence up"""
    rho = np.exp(logp - logp_old)
    loss = -np.minimum(rho * adv[:, None], np.clip(rho, 1 - low, 1 + high) * adv[:, None])
    return (loss * mask).sum(axis=1).mean()


def process_advantages__strict(step_reward, step_end, group, mask):
    """index > t instead of >= t"""
    steps, x = step_end & (mask > 0), np.zeros(step_reward.shape)
    for g in set(group.tolist()):
        own = steps & (group == g)[:, None]
        y = step_reward[own]
        x[own] = (y - y.mean()) / (y.std(ddof=1) + 1e-4) if np.ptp(y) > 0 else 0.0
    return (np.cumsum(x[:, ::-1], axis=1)[:, ::-1] - x) * mask


def token_mean__sequences(x, mask, group):
    """the mean over sequences of their means"""
    return ((x * mask).sum(axis=1) / mask.sum(axis=1)).mean()


def kept_groups__shaped(correct, reward, group):
    """you filter after shaping"""
    return np.array([float(np.ptp(reward[group == g]) > 0) for g in group])


def overlong_penalty__no_clip(length, longest, cache):
    """not clipped at -1"""
    return np.minimum((longest - cache - length) / cache, 0.0)
