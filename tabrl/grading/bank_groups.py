"""Exercises of lessons 18 to 20: groups of sequences, GRPO, process supervision, DAPO."""

from tabrl.grading.bank_record import Exercise
from tabrl.verify import cases_filter

BATCH = "group: (B,) labels, in any order. mask: (B,T), 1 for tokens that count, which come first.\n"
FLAT = (
    ("not finite", "In a group whose rewards are all the same the deviation is 0, and 0 / 0 is nan: such a group"
                   " teaches nothing, its advantages are 0."),
)  # fmt: skip

EXERCISES = (
    Exercise(
        "group_advantages", "reward, group", "Advantages within groups", 18, "E2.4", 15,
        "A = (reward - mean of the group) / (std of the group + 1e-4), std with n - 1; 0 where all are equal",
        """
reward: (B,) outcomes of sequences. group: (B,) labels of their prompts, in any order. The deviation is that of a sample
(divide by n - 1). Returns A (B,); exactly 0 in a group whose rewards are all the same.
""",
        advice=FLAT,
    ),
    Exercise(
        "grpo_loss", "logp, logp_old, adv, mask, low, high", "The loss of GRPO", 18, "E2.3", 20,
        "mean over sequences of the mean over their tokens of -min(rho A, clip(rho, 1 - low, 1 + high) A)",
        """
logp, logp_old: (B,T) log-probabilities of the tokens under the new and the old policy. adv: (B,) of the sequences, the
same for all tokens of one. mask: (B,T), 1 for tokens that count, which come first; what stands elsewhere means nothing.
low, high: bounds of the ratio. Returns one number, to be minimised.
""",
    ),
    Exercise(
        "process_advantages", "step_reward, step_end, group, mask", "Process supervision", 19, "E2.5", 30,
        "A[t] = sum over steps that end at u >= t of (step_reward[u] - mean) / (std + 1e-4), over the group's steps",
        "step_reward: (B,T). step_end: (B,T), true where a step ends; other entries of step_reward mean nothing.\n"
        f"{BATCH}Mean and deviation (n - 1) are over all steps of all sequences of the group; steps where the\n"
        "mask is 0 do not count. Where all step rewards of a group are the same they count as 0.\n"
        "Returns A (B,T), 0 where the mask is 0.",
        advice=FLAT,
    ),
    Exercise(
        "token_mean", "x, mask, group", "The token-level loss of DAPO", 20, "E2.9", 15,
        "mean over groups of (sum of x over the group's tokens / number of the group's tokens)",
        f"x: (B,T) losses of tokens; what stands where the mask is 0 means nothing.\n{BATCH}Returns one number.",
    ),
    Exercise(
        "kept_share", "p, G", "How many groups dynamic sampling keeps", 20, "E2.8", 10,
        "a(p) = 1 - p^G - (1-p)^G: neither all right nor all wrong",
        """
p: (n,) chances that an answer to each prompt is right. G: answers in a group. Returns the expected share (n,) of groups
that have both right and wrong answers.
""",
    ),
    Exercise(
        "kept_groups", "correct, reward, group", "Which groups dynamic sampling keeps", 20, "E2.8", 10,
        "keep the group if 0 < number of right answers < its size",
        """
correct: (B,), 1 for right answers and 0 for wrong ones. reward: (B,) what they are paid: correct plus the penalty of
overlong ones. group: (B,) labels, in any order. Returns (B,), 1 for the answers of groups that are kept, else 0.
""",
        special=cases_filter.filter_cases,
    ),
    Exercise(
        "overlong_penalty", "length, longest, cache", "The penalty of overlong answers", 20, "E2.11", 10,
        "penalty = clip((longest - cache - length) / cache, -1, 0)",
        """
length: (B,) tokens. longest: the limit. cache: how many tokens before the limit the penalty begins. Returns (B,): 0 up
to longest - cache, then a line down to -1 at the limit, and -1 beyond; to be added to the reward.
""",
    ),
)  # fmt: skip
