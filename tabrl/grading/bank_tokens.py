"""Exercises of lessons 16, 17, 19 and 21: sequences of tokens, PPO for language models, KL, engines."""

from tabrl.grading.bank_record import Exercise

EXERCISES = (
    Exercise(
        "prefix_values", "pi, reward", "Values of all prefixes of a prompt", 16, "E2.1", 20,
        "V(h) = sum over a of pi(a|h) (reward(h,a) + V(h a)), and V = 0 where the sequence ends",
        """
pi: (N,V) chances of the next token after each prefix. reward: (N,V) paid with that token. Row 0 is the empty prefix;
row h V + 1 + a follows token a of row h, V being the number of tokens; where there is no such row the sequence ends.
Returns V (N,), the expected reward to go after each prefix.
""",
    ),
    Exercise(
        "token_gae", "r, v, mask, lam", "Generalised advantages of tokens", 17, "E2.2", 20,
        "A[t] = r[t] + v[t+1] - v[t] + lam A[t+1]; after the last token that counts v and A are 0",
        """
r, v: (B,T): r[i,t] is paid with token t of sequence i, v[i,t] is the value of the prefix before it. mask: (B,T), 1 for
tokens that count, which come first; what r and v hold where it is 0 means nothing. lam: from 0 to 1; gamma is 1.
Returns A (B,T), 0 where the mask is 0.
""",
    ),
    Exercise(
        "k3", "logp, logp_ref", "The estimate k3 of a KL", 19, "E2.6", 10,
        "k3 = ref/pi - 1 - log(ref/pi) for each token that pi drew; its mean is KL(pi, ref)",
        """
logp, logp_ref: (T,) log-probabilities of the drawn tokens under pi and under the reference, in nats. Returns k3 (T,).
""",
    ),
    Exercise(
        "best_distribution", "ref, r, beta", "The optimum under a KL penalty", 19, "E2.7", 10,
        "pi* = ref exp(r / beta) / Z maximises E[r] - beta KL(pi, ref)",
        """
ref: (n,) chances of all sequences of a prompt under the reference. r: (n,) their rewards. beta: weight of the KL.
Returns pi* (n,), a distribution.
""",
    ),
    Exercise(
        "count_passes", "critic, kl, epochs, kept", "What a method asks of its networks", 21, "E2.10", 10,
        "networks = 1 + critic + kl;  passes = 1 / kept + epochs + critic (1 + epochs) + kl",
        """
critic, kl: 1 if the method has a critic, or a KL to a reference, else 0. epochs: looks at each batch. kept: share of
the drawn tokens that are used. Returns (2,): networks held in memory, and forward passes for each token that is used:
drawing it (also the tokens that are dropped), each epoch of the policy, the critic's look for the advantages and its
epochs, the reference's look.
""",
    ),
    Exercise(
        "copy_reward", "prompts, completions", "A verifier as engines ask for it", 21, "E2.12", 10,
        "reward = 1 if the words of the completion are those of the prompt after 'copy:', else 0",
        """
prompts: a list of B texts such as "copy: a b". completions: a list of B texts. Spaces and line ends between words do
not matter; capitals, order and number of words do. Returns rewards (B,).
""",
    ),
)  # fmt: skip
