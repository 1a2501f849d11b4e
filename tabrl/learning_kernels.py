"""The inner loops of the prediction learners, over buffers that may hold many episodes.

V (S,) changed in place; s, s_next, r, discount, last (n,) transitions; z (S,) trace; alpha (m,) step size
of a state's k-th update, the last entry standing for all later ones; count (S,) updates of each state so far.
Each returns its last error. Many runs are one: V (runs·S,), where run i owns the states i S, …, i S + S - 1.
"""

from tabrl._jit import kernel
from tabrl.types import B, F, I


@kernel
def step_size(alpha: F, count: I, s: int) -> float:
    """Step size of the next update of state s, which is counted unless the step size is one number."""
    if alpha.shape[0] == 1:
        return alpha[0]  # type: ignore[no-any-return]
    k = min(count[s], alpha.shape[0] - 1)
    count[s] += 1
    return alpha[k]  # type: ignore[no-any-return]


@kernel
def td0_pass(V: F, s: I, s_next: I, r: F, discount: F, alpha: F, count: I) -> float:
    """V(s) <- V(s) + alpha (r + discount V(s_next) - V(s)), one transition after the other."""
    delta = 0.0
    for t in range(r.shape[0]):
        delta = r[t] + discount[t] * V[s_next[t]] - V[s[t]]
        V[s[t]] += step_size(alpha, count, s[t]) * delta
    return delta


@kernel
def n_step_sums(s_next: I, r: F, discount: F, last: B, n: int, to: I, R: F, D: F) -> int:
    """Fill the n-step transitions of a buffer; return how many are ready for use.

        R[t] = r[t] + discount[t] r[t+1] + …   (n terms, fewer at the end of the episode)
        D[t] = product of their discounts,   to[t] the state that follows

    Constant time per step: every episode is cut into blocks of n steps, and a window is the end of one block and
    the beginning of the next. An unfinished episode is ready up to a multiple of n, where the next call goes on.
    """
    begin, T = 0, r.shape[0]
    while begin < T:
        end = begin + 1
        while end < T and not last[end - 1]:
            end += 1
        for block in range(begin, end, n):
            stop = min(block + n, end)
            x, d = 0.0, 1.0
            for t in range(stop - 1, block - 1, -1):
                x, d = r[t] + discount[t] * x, discount[t] * d
                R[t], D[t], to[t] = x, d, s_next[stop - 1]
            x, d, t = 0.0, 1.0, block
            for i in range(max(begin, block - n + 1), block):  # windows that began in the block before
                if t < end:
                    x, d, t = x + d * r[t], d * discount[t], t + 1
                R[i], D[i], to[i] = R[i] + D[i] * x, D[i] * d, s_next[t - 1]
        if not last[end - 1]:
            return max(begin, end - (end - begin) % n - n)
        begin = end
    return begin


@kernel
def lambda_return_pass(
    V: F, s: I, s_next: I, r: F, discount: F, last: B, lam: float, first: bool, alpha: F, count: I, G: F, seen: I
) -> float:
    """Move each state towards its lambda-return, episode by episode; targets use V from before the episode.

    first: only at a state's first visit in the episode. The buffer holds whole episodes. G (n,) room for the
    targets; seen (S,) room for the time of the last visit.
    """
    begin, delta, T = 0, 0.0, r.shape[0]
    for i in range(seen.shape[0]):
        seen[i] = -1
    while begin < T:
        end = begin
        while not last[end]:
            end += 1
        target = V[s_next[end]]
        for t in range(end, begin - 1, -1):
            target = r[t] + discount[t] * ((1.0 - lam) * V[s_next[t]] + lam * target)
            G[t] = target
        for t in range(begin, end + 1):
            if not first or seen[s[t]] < begin:
                delta = G[t] - V[s[t]]
                V[s[t]] += step_size(alpha, count, s[t]) * delta
            seen[s[t]] = t
        begin = end + 1
    return delta


@kernel
def td_lambda_pass(
    V: F, z: F, S: int, s: I, s_next: I, r: F, discount: F, last: B, lam: float, trace: int, alpha: F, count: I
) -> float:
    """V <- V + alpha delta z with an accumulating (0), replacing (1) or dutch (2) trace z, carried over."""
    delta, low = 0.0, 0
    for t in range(r.shape[0]):
        if not low <= s[t] < low + S:
            low = s[t] - s[t] % S
        delta = r[t] + discount[t] * V[s_next[t]] - V[s[t]]
        a = step_size(alpha, count, s[t])
        if trace == 0:
            z[s[t]] += 1.0
        elif trace == 1:
            z[s[t]] = 1.0
        else:
            z[s[t]] += 1.0 - a * z[s[t]]
        decay = 0.0 if last[t] else lam * discount[t]
        move = a * delta
        for i in range(low, low + S):
            V[i] += move * z[i]
            z[i] *= decay
    return delta


@kernel
def true_online_pass(
    V: F, z: F, old: F, S: int, s: I, s_next: I, r: F, discount: F, last: B, lam: float, alpha: F, count: I
) -> float:
    """True online TD(lambda): old (runs,) is the value that s had when it was entered; carried over, like z."""
    delta, low = 0.0, 0
    for t in range(r.shape[0]):
        if not low <= s[t] < low + S:
            low = s[t] - s[t] % S
        run = 0 if low == 0 else low // S
        v, v_next = V[s[t]], V[s_next[t]]
        delta = r[t] + discount[t] * v_next - v
        a = step_size(alpha, count, s[t])
        z[s[t]] += 1.0 - a * z[s[t]]
        gap = v - old[run]
        move = a * (delta + gap)
        decay = 0.0 if last[t] else lam * discount[t]
        V[s[t]] -= a * gap
        for i in range(low, low + S):
            V[i] += move * z[i]
            z[i] *= decay
        old[run] = 0.0 if last[t] else v_next
    return delta
