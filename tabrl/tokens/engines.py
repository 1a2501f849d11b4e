"""The settings of our methods, and what the engines that train large models call them: TRL and verl.

A row of `SETTINGS` is one choice of ours with the keys and values that make it there, and what is not the same. It
holds for the versions in `READ`, from whose source it was read. Keys of one engine are parted by semicolons; what
stands in parentheses is no key.
"""

from typing import NamedTuple

from tabrl._xp import one_of

READ = {"trl": "1.16.0", "verl": "0.9.1"}
NONE = "–"  # an engine has no such choice
A = "actor_rollout_ref.actor"


class Setting(NamedTuple):
    """One choice, and what it is called elsewhere."""

    what: str
    ours: str
    trl: str
    verl: str
    note: str


SETTINGS = (
    Setting("Answers per prompt, G", "Groups(G=16)", "num_generations=16", "actor_rollout_ref.rollout.n=16", ""),
    Setting(
        "Sequences per batch, prompts × G", "Groups(n=8)", "per_device_train_batch_size=128",
        f"data.train_batch_size=8; {A}.ppo_mini_batch_size=8",
        "TRL counts sequences, per device and accumulation step; verl counts prompts, as n does.",
    ),
    Setting(
        "Longest answer, L", "TokenTask(length=L)", "max_completion_length=L", "data.max_response_length=L",
        "An answer that is cut at L is finished and rewarded on every side.",
    ),
    Setting(
        "Temperature", "(1, always)", "temperature=1.0", "actor_rollout_ref.rollout.temperature=1.0",
        "Both engines divide the logits by it when they draw and when they learn. With top_p or top_k the ratio is no "
        "longer that of what was drawn: leave them off.",
    ),
    Setting(
        "Learning rate", "adam(3e-3)", "learning_rate=3e-3; lr_scheduler_type=constant; weight_decay=0.0",
        f"{A}.optim.lr=3e-3; {A}.optim.weight_decay=0.0",
        "AdamW in both engines, β and ε as ours. Unless told otherwise TRL lets the rate fall to 0 in a line, and verl "
        "decays weights by .01.",
    ),
    Setting(
        "Gradient norm at most", "held(1.0, adam(3e-3))", "max_grad_norm=1.0", f"{A}.optim.clip_grad=1.0",
        "Of all parameters together, on every side.",
    ),
    Setting(
        "Updates per batch, μ", "epochs=1", "num_iterations=1", f"{A}.ppo_epochs=1",
        "With one update the ratio is 1 and nothing clips.",
    ),
    Setting(
        "Baseline: mean of the group", "Outcome(leave_one_out=False)", "(always)", "algorithm.adv_estimator=grpo",
        "The sample itself is in the mean, on every side. A group of one: refused by us and TRL, the bare reward in "
        "verl.",
    ),
    Setting(
        "Baseline: mean of the others (RLOO)", 'Outcome(leave_one_out=True, std="none")', "(RLOOTrainer)",
        "algorithm.adv_estimator=rloo",
        "No setting of TRL's GRPOTrainer. Its RLOOTrainer takes the ratio of whole sequences, their product and not "
        "their geometric mean.",
    ),
    Setting(
        "Divided by the group's standard deviation", 'Outcome(std="sample", eps=1e-4)', "scale_rewards=group",
        "algorithm.norm_adv_by_std_in_grpo=True",
        "Divisor G − 1 on every side. ε is fixed in the engines, 1e-4 in TRL and 1e-6 in verl: give ours the same.",
    ),
    Setting(
        "Divided by the population's", 'Outcome(std="population")', NONE, NONE,
        "For ε = 0 it is the sample form times √(G / (G − 1)).",
    ),
    Setting(
        "Not divided (Dr. GRPO)", 'Outcome(std="none")', "scale_rewards=none",
        "algorithm.norm_adv_by_std_in_grpo=False", "",
    ),
    Setting(
        "Divided by the batch's standard deviation", NONE, "scale_rewards=batch", NONE,
        "Less the mean of the group, over the sample deviation of all rewards of the batch + 1e-4.",
    ),
    Setting(
        "Clip", "Clip(low=0.2, high=0.28)", "epsilon=0.2; epsilon_high=0.28",
        f"{A}.clip_ratio_low=0.2; {A}.clip_ratio_high=0.28",
        "TRL's upper bound is the lower one unless given. verl looks at its clip_ratio only where the two are null.",
    ),
    Setting(
        "Dual clip", "Clip(dual=3.0)", "delta=3.0", f"{A}.clip_ratio_c=3.0",
        "Off in ours and TRL unless given. verl always has one, at 3 unless given; 1e9 is as good as none. TRL's also "
        "bounds tokens of positive advantage: the same while delta ≥ 1 + epsilon_high.",
    ),
    Setting(
        "One ratio per sequence (GSPO)", "Sequence(low=3e-4, high=4e-4)",
        "importance_sampling_level=sequence; loss_type=grpo; epsilon=3e-4; epsilon_high=4e-4",
        f"{A}.policy_loss.loss_mode=gspo; {A}.loss_agg_mode=seq-mean-token-mean; "
        f"{A}.clip_ratio_low=3e-4; {A}.clip_ratio_high=4e-4",
        "Geometric mean of the tokens' ratios on every side, and one gradient where a sequence's tokens have one "
        "advantage. verl cuts the ratio at e¹⁰.",
    ),
    Setting(
        "CISPO", "Capped(high=4.0)", "loss_type=cispo; epsilon_high=5.0",
        f"{A}.policy_loss.loss_mode=cispo; {A}.clip_ratio_low=1.0; "
        f"{A}.clip_ratio_high=4.0",
        "TRL's epsilon_high is the cap, ours and verl's what it is above 1. TRL has no lower bound; 1.0 takes verl's "
        "away. TRL then takes the mean over the batch's tokens.",
    ),
    Setting(
        "Mean over sequences of their means (GRPO)", 'how="sequence"', "loss_type=grpo",
        f"{A}.loss_agg_mode=seq-mean-token-mean",
        "A sequence whose tokens are all masked counts with 0, on every side.",
    ),
    Setting(
        "Mean over the batch's tokens", 'how="token"', "loss_type=dapo", f"{A}.loss_agg_mode=token-mean",
        "The default of both engines. TRL's bnpo is the mean over the tokens of each device and accumulation step.",
    ),
    Setting(
        "Mean over groups of the mean over their tokens", 'how="group_token"', NONE, NONE,
        "The DAPO paper's formula. Both engines' DAPO is the row above; equal where all groups have equally many "
        "tokens.",
    ),
    Setting(
        "Sum over tokens / (B L) (Dr. GRPO)", 'how="constant"', "loss_type=dr_grpo; max_completion_length=L",
        f"{A}.loss_agg_mode=seq-mean-token-sum-norm; {A}.loss_scale_factor=L",
        "B sequences. verl divides by the width of its padded batch unless told L.",
    ),
    Setting(
        "KL in the loss, k3", 'Penalty(beta=0.04, kind="k3", place="loss")', "beta=0.04; use_bias_correction_kl=False",
        f"{A}.use_kl_loss=True; {A}.kl_loss_coef=0.04; "
        f"{A}.kl_loss_type=low_var_kl",
        "TRL has k3 only; verl also k1 (kl) and k2 (mse), and with a + behind the name the value of one and the "
        "gradient of k2. verl cuts k3 at 10.",
    ),
    Setting(
        "KL in the loss, weighted by the ratio", 'Penalty(beta=0.04, kind="k3", place="weighted")',
        "beta=0.04; use_bias_correction_kl=True", NONE,
        "What TRL does unless told otherwise, wherever beta is not 0. The gradient differs from the row above at "
        "ratio 1 too.",
    ),
    Setting(
        "KL in the reward, k1", 'Penalty(beta=0.04, kind="k1", place="reward")', "(RLOOTrainer: beta=0.04)",
        "algorithm.use_kl_in_reward=True; algorithm.kl_penalty=kl; algorithm.kl_ctrl.kl_coef=0.04",
        "Summed over the sequence before the group's mean is taken off, on every side; with a critic, per token.",
    ),
    Setting(
        "Adaptive KL coefficient", "Penalty(target=0.1)", NONE,
        "algorithm.kl_ctrl.type=adaptive; algorithm.kl_ctrl.target_kl=0.1; algorithm.kl_ctrl.horizon=10000",
        "Another rule: verl changes the coefficient by at most 20 % × samples / horizon a step, ours doubles or "
        "halves it.",
    ),
    Setting(
        "Entropy bonus", "entropy=0.03", "entropy_coef=0.03", f"{A}.entropy_coeff=0.03",
        "Aggregated as the loss is in ours and verl; the mean over the batch's tokens in TRL, whatever loss_type is.",
    ),
    Setting(
        "Dynamic sampling", "Dynamic(G=16)", NONE,
        "algorithm.filter_groups.enable=True; algorithm.filter_groups.metric=acc",
        "Judged by the verifier's rewards; verl's metric=reward would include overlong shaping. Ours stops after "
        "`limit` batches; verl 0.9 draws on without a limit. TRL keeps flat groups: they add 0 and count in the mean.",
    ),
    Setting(
        "Overlong shaping", "Overlong(longest=L, cache=C)", "(reward_funcs: get_soft_overlong_punishment)",
        "reward.reward_manager.name=dapo; +reward.reward_kwargs.max_resp_len=L; "
        "+reward.reward_kwargs.overlong_buffer_cfg.enable=True; +reward.reward_kwargs.overlong_buffer_cfg.len=C; "
        "+reward.reward_kwargs.overlong_buffer_cfg.penalty_factor=1.0; "
        "+reward.reward_kwargs.overlong_buffer_cfg.log=True",
        "One function of the length on every side. In TRL it is a second reward function, which is added to the first.",
    ),
    Setting(
        "Truncated answers left out", NONE, "mask_truncated_completions=True", NONE,
        "Ours: a mask of 0. TRL keeps their rewards in the group's mean, and counts them among the sequences.",
    ),
    Setting(
        "Critic and GAE", "(tokens.train.ppo)", NONE, "algorithm.adv_estimator=gae; algorithm.lam=1.0",
        "verl always whitens the advantages over the tokens of the batch.",
    ),
)  # fmt: skip


def table() -> str:
    """The settings as a table in Markdown.

    >>> print(table().splitlines()[0])
    | what | tabrl | TRL | verl | what differs |
    """
    rows = [[x.what, code(x.ours), code(x.trl), code(x.verl), x.note] for x in SETTINGS]
    head = ["| what | tabrl | TRL | verl | what differs |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def code(keys: str) -> str:
    """Keys in the type of code, each on a line of its own; remarks and dashes as they are."""
    return "<br>".join(k if k == NONE or k.startswith("(") else f"`{k}`" for k in keys.split("; "))


def renewed(page: str) -> str:
    """A page with the present table between its two marks, `<!-- settings -->` and `<!-- end -->`.

    docs/engines.md is such a page: the table there is written by this. Raises ValueError for a page without the marks.
    """
    before, begin, rest = page.partition("<!-- settings -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not end:
        raise ValueError("page has no <!-- settings --> and <!-- end -->; both are expected, in this order")
    return f"{before}{begin}\n{table()}\n\n{end}{after}"


def keys_of(engine: str) -> dict[str, tuple[str, ...]]:
    """Every key of an engine in `SETTINGS`, "trl" or "verl", with the values that it is given there.

    >>> keys_of("trl")["loss_type"]
    ('grpo', 'cispo', 'dapo', 'dr_grpo')
    """
    one_of(tuple(READ), engine=engine)
    found: dict[str, list[str]] = {}
    for row in SETTINGS:
        for item in getattr(row, engine).split("; "):
            key, equals, value = item.partition("=")
            if equals and not key.startswith("(") and value not in found.setdefault(key, []):
                found[key].append(value)
    return {key: tuple(values) for key, values in found.items()}
