"""Who gets how much of the reward: from the rewards of a batch of sequences to a number for every token.

B sequences of at most T tokens. mask (B,T) is not 0 where a token counts; what the other arrays hold elsewhere does not
matter, and what is returned is 0 there. Tokens that do not count may stand anywhere: "next" and "last" pass over them.
reward, adv, group (B,): outcome of each sequence, its advantage, the label of its group. r (B,T) rewards of tokens,
v (B,T) the critic's value of the prefix before each token, A (B,T) advantages. NumPy or torch, by the argument.
"""

from typing import Any

from tabrl._xp import Array, at_least, namespace
from tabrl.advantages import group_advantages
from tabrl.divergences import kl_estimate
from tabrl.errors import ShapeError
from tabrl.returns import check_lam

# ---- rewards ----


def terminal_rewards(reward: Array, mask: Array) -> Array:
    """The outcome as rewards of tokens: all of it at the last token, 0 before.

    reward: (B,), mask: (B,T). Returns (B,T). A sequence without tokens has nowhere to put its outcome. Raises
    ShapeError. Source: Ouyang et al. (2022), Training language models to follow instructions; ledger E2.1, E2.2.

    >>> import numpy as np
    >>> terminal_rewards(np.array([5.0, 7.0]), np.array([[1, 1], [1, 0]]))
    array([[0., 5.],
           [7., 0.]])
    """
    xp, on = tokens_of(mask, reward=reward)
    last = on & (on.cumsum(1) == on.sum(1)[:, None])
    return xp.where(last, reward[:, None], 0.0)


def kl_rewards(logp: Array, logp_ref: Array, mask: Array, beta: float, *, kind: str = "k1") -> Array:
    """What leaving the reference costs, as rewards of tokens to be added to the others.

        -beta k[t],   k1 = logp - logp_ref

    logp of the policy that drew the tokens, a constant of the update. With k1 the sum over a sequence has the mean
    -beta KL(pi || ref) of whole sequences, and so do returns taken from it: the KL placement that is exact. kind: as in
    `divergences.kl_estimate`. beta >= 0. Returns (B,T). Raises ShapeError, ValueError.
    Source: Ziegler et al. (2019), Fine-tuning language models from human preferences, section 2; ledger E2.2, E2.6.

    >>> import numpy as np
    >>> kl_rewards(np.array([[-1.0, -9.0]]), np.array([[-3.0, 0.0]]), np.array([[1, 0]]), 0.5)
    array([[-1.,  0.]])
    """
    xp, on = tokens_of(mask)
    namespace(mask=mask, logp=logp, logp_ref=logp_ref)
    at_least(0, beta=beta)
    return xp.where(on, -beta * kl_estimate(kept(on, logp), kept(on, logp_ref), kind=kind), 0.0)


def overlong_penalty(length: Array, longest: float, cache: float) -> Array:
    """Soft punishment of sequences that come close to the limit, to be added to the outcome.

        clip((longest - cache - length) / cache, -1, 0)

    length: (B,) tokens of each sequence, mask.sum(1). 0 up to longest - cache tokens, -1 from longest on, linear in
    between: 1 <= cache <= longest. A sequence cut by the limit is as long as the limit. Returns (B,). Raises
    ValueError. Dynamic sampling looks at the outcome before this is added: a group is kept or not by right and wrong,
    not by lengths. Source: Yu et al. (2025), DAPO, eq. 13; ledger E2.8, E2.11.

    >>> import numpy as np
    >>> overlong_penalty(np.array([6, 7, 10, 12]), 10, 4)
    array([ 0.  , -0.25, -1.  , -1.  ])
    """
    xp = namespace(length=length)
    at_least(1, cache=cache)
    at_least(cache, longest=longest)
    return xp.clip((longest - cache - length) / cache, -1, 0)


# ---- advantages ----


def per_token(adv: Array, mask: Array) -> Array:
    """Outcome supervision: every token of a sequence gets the advantage of the sequence.

        A[i,t] = adv[i]

    adv: (B,), from `advantages.group_advantages`; mask: (B,T). Returns (B,T). Raises ShapeError.
    Source: Shao et al. (2024), DeepSeekMath, section 4.1.2; ledger E2.4.

    >>> import numpy as np
    >>> per_token(np.array([1.0, -1.0]), np.array([[1, 1], [1, 0]]))
    array([[ 1.,  1.],
           [-1.,  0.]])
    """
    xp, on = tokens_of(mask, adv=adv)
    return xp.where(on, adv[:, None], 0.0)


def process_advantages(
    step_reward: Array, step_end: Array, group: Array, mask: Array, *, std: str = "sample", eps: float = 1e-4
) -> Array:
    """Process supervision: a token gets the normalised rewards of the steps that it can still influence.

        A[i,t] = sum of (step_reward[i,u] - mean) / (std + eps) over the steps with an end u >= t

    step_reward: (B,T), looked at where step_end (B,T) says that a step ends. Mean and std are those of all step rewards
    of the group, whichever sequence they come from; std and eps as in `advantages.group_advantages`. Equal step rewards
    give exactly 0, and so does a group's only one: it is its own mean. Sequences without steps get 0; tokens after the
    last step too. Returns (B,T). Raises ShapeError, and ValueError for a group of one sequence.
    Source: Shao et al. (2024), DeepSeekMath, section 4.1.3; ledger E2.5.

    >>> import numpy as np
    >>> r, end, group = np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2), bool), np.zeros(2, int)
    >>> process_advantages(r, end, group, end, std="population", eps=0.0)
    array([[ 0., -1.],
           [ 0., -1.]])
    """
    xp, on = tokens_of(mask, group=group)
    namespace(mask=mask, step_reward=step_reward, step_end=step_end)
    steps = on & (step_end != 0)
    steps = steps & (steps_of_groups(steps, group) > 1)[:, None]
    labels = xp.broadcast_to(group[:, None], tuple(steps.shape))
    r = xp.zeros_like(step_reward * 1.0)
    r[steps] = group_advantages(step_reward[steps], labels[steps], std=std, eps=eps)
    return token_returns(r, mask)


def steps_of_groups(steps: Array, group: Array) -> Array:
    """How many steps the group of each sequence has, (B,). Raises ValueError for a group of one sequence."""
    xp = namespace(group=group)
    labels, own = xp.unique(group, return_inverse=True)
    G = xp.bincount(own)
    if len(G) and G.min() < 2:
        raise ValueError(f"group {labels[G.argmin()].item()!r} has 1 sample; 2 or more are expected")
    return xp.bincount(own, weights=steps.sum(1))[own]


def token_returns(r: Array, mask: Array) -> Array:
    """Reward to go: what a token and those after it are paid.

        G[t] = r[t] + G[t+1],   G = 0 after the last token

    r, mask: (B,T). Returns (B,T). Raises ShapeError. Source: Sutton & Barto (2018), eq. 3.9; ledger E2.1.

    >>> import numpy as np
    >>> token_returns(np.array([[1.0, 2.0, 3.0]]), np.array([[1, 1, 0]]))
    array([[3., 2., 0.]])
    """
    xp, on = tokens_of(mask)
    namespace(mask=mask, r=r)
    r = kept(on, r)
    return kept(on, backward(r, on, 1.0, xp.zeros_like(r.sum(1)))[:, :-1])


def token_gae(r: Array, v: Array, mask: Array, lam: float, *, gamma: float = 1.0, v_last: Array | None = None) -> Array:
    """Generalised advantage estimates of a batch of sequences.

        A[t] = delta[t] + gamma lam A[t+1],   delta[t] = r[t] + gamma v[t+1] - v[t]

    r, v, mask: (B,T), v[t] the value of the prefix before token t. After the last token A and v are 0: the sequence is
    finished, by EOS or by the length limit, which is part of the task and an end like the other. v_last (B,) is for
    sequences that were cut and would have gone on: the value of the prefix that was reached, 0 for the finished ones.
    lam, gamma in [0, 1]; lam=0 gives the TD errors, lam=1 the reward to go less v. Each row is `returns.gae` of the
    row; the critic's targets are `returns.value_target(A, v)`. Returns (B,T). Raises ShapeError, ValueError.
    Source: Schulman et al. (2016), High-dimensional continuous control using GAE, eq. 16; ledger E2.2.

    >>> import numpy as np
    >>> token_gae(np.array([[0.0, 1.0, 9.0]]), np.array([[0.5, 0.25, 9.0]]), np.array([[1, 1, 0]]), 0.5)
    array([[0.125, 0.75 , 0.   ]])
    """
    xp, on = tokens_of(mask) if v_last is None else tokens_of(mask, v_last=v_last)
    namespace(mask=mask, r=r, v=v)
    check_lam(lam)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma}; a number in [0, 1] is expected")
    r, v = kept(on, r), kept(on, v)
    nothing = xp.zeros_like(r.sum(1))
    v_next = backward(v, on, 0.0, nothing if v_last is None else v_last * 1.0)[:, 1:]
    A = backward(r + gamma * v_next - v, on, gamma * lam, nothing)[:, :-1]
    return kept(on, A)


def backward(x: Array, on: Array, decay: float, tail: Array) -> Array:
    """Decayed sums of what is still to come, one more column than x: (B,T) to (B,T+1).

        y[t] = x[t] + decay y[t+1] where on[t], else y[t+1];   y[T] = tail (B,)

    With decay=0 the x of the nearest token from t on.
    """
    xp = namespace(x=x)
    y = [tail]
    for t in reversed(range(x.shape[1])):
        y.append(xp.where(on[:, t], x[:, t] + decay * y[-1], y[-1]))
    return xp.stack(y[::-1], 1)


# ---- masks ----


def kept(on: Array, x: Array) -> Array:
    """Entries where on, 0 elsewhere, whatever stood there."""
    return namespace(mask=on, x=x).where(on, x, 0.0)


def tokens_of(mask: Array, **per_sequence: Array) -> tuple[Any, Array]:
    """The library, and where tokens count, (B,T), once the arrays of sequences are (B,)."""
    namespace(mask=mask)
    if mask.ndim != 2:
        raise ShapeError(f"mask has shape {tuple(mask.shape)}; (B,T) is expected")
    on = mask != 0
    return namespace(sequences=on.sum(1), **per_sequence), on
