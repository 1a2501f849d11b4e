"""verl's own functions on our numbers. Needs verl, which is not part of any extra: pip install verl==0.9.1"""

import types
import warnings
from typing import Any

import numpy as np
import pytest

from tabrl.advantages import group_advantages
from tabrl.divergences import kl_estimate
from tabrl.losses import aggregate, d_aggregate, d_ppo_clip, ppo_clip
from tabrl.tokens.surrogates import cispo, d_cispo, d_gspo, gspo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    WHY = "verl is not installed: pip install verl==0.9.1"
    verl: Any = pytest.importorskip("verl.trainer.ppo.core_algos", reason=WHY, exc_type=ImportError)
    workers: Any = pytest.importorskip("verl.workers.config", reason=WHY, exc_type=ImportError)
    torch: Any = pytest.importorskip("torch", reason=WHY)

pytestmark = pytest.mark.filterwarnings("ignore")
G, K, T = 4, 3, 5
HOW = {"token-mean": "token", "seq-mean-token-mean": "sequence", "seq-mean-token-sum-norm": "constant"}


def numbers(seed: int) -> Any:
    """Log-probabilities, rewards and masks of ragged sequences in float64."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, T + 1, K * G)
    length[rng.integers(K * G)] = T
    x = types.SimpleNamespace(
        mask=torch.as_tensor((np.arange(T) < length[:, None]) * 1.0),
        logp=torch.as_tensor(rng.normal(-1.5, 0.5, (K * G, T))),
        reward=torch.as_tensor(rng.normal(0.0, 1.0, K * G)),
        group=np.repeat(np.arange(K), G),
    )
    x.old = x.logp + torch.as_tensor(rng.normal(0.0, 0.8, (K * G, T)))
    x.ref = x.logp + torch.as_tensor(rng.normal(0.0, 0.7, (K * G, T)))
    x.adv = torch.as_tensor(rng.normal(0.0, 1.0, K * G))[:, None].expand(-1, T).contiguous()
    return x


@pytest.mark.parametrize("mode", HOW)
@pytest.mark.parametrize(("name", "low", "high"), [("vanilla", 0.2, 0.28), ("gspo", 0.1, 0.15), ("cispo", 1.0, 0.4)])
def test_losses_are_ours(name: str, low: float, high: float, mode: str) -> None:
    """Value and derivative; the mean over sequences up to the 1e-8 that verl adds to the length."""
    config = workers.ActorConfig(
        strategy="fsdp", rollout_n=G, use_dynamic_bsz=True, clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=3.0
    )
    config.global_batch_info.update(loss_scale_factor=T)
    for seed in range(20):
        x = numbers(seed)
        ours: Any = {
            "vanilla": (ppo_clip, d_ppo_clip, (x.logp, x.old, x.adv), {"low": low, "high": high, "dual": 3.0}),
            "gspo": (gspo, d_gspo, (x.logp, x.old, x.adv, x.mask), {"low": low, "high": high}),
            "cispo": (cispo, d_cispo, (x.logp, x.old, x.adv), {"high": high}),
        }[name]
        loss, slope = (f(*ours[2], **ours[3]) for f in ours[:2])
        logp = x.logp.clone().requires_grad_()
        theirs, _ = verl.get_policy_loss_fn(name)(x.old, logp, x.adv, x.mask, loss_agg_mode=mode, config=config)
        (found,) = torch.autograd.grad(theirs, logp)
        limit = 2e-8 if mode == "seq-mean-token-mean" else 1e-12
        assert abs(theirs.item() - aggregate(loss, x.mask, how=HOW[mode], length=T).item()) <= limit
        assert float(abs(found - slope * d_aggregate(loss, x.mask, how=HOW[mode], length=T)).max()) <= limit


def test_advantages_are_ours() -> None:
    """Sample deviation with 1e-6, none, and leave-one-out."""
    for seed in range(20):
        x = numbers(seed)
        rewards = torch.zeros(K * G, T).double()
        rewards[:, 0] = x.reward
        group = torch.as_tensor(x.group)
        for theirs, ours in (
            (verl.compute_grpo_outcome_advantage(rewards.clone(), x.mask, x.group), {"std": "sample", "eps": 1e-6}),
            (
                verl.compute_grpo_outcome_advantage(rewards.clone(), x.mask, x.group, norm_adv_by_std_in_grpo=False),
                {"std": "none"},
            ),
            (
                verl.compute_rloo_outcome_advantage(rewards.clone(), x.mask, x.group),
                {"std": "none", "leave_one_out": True},
            ),
        ):
            A: Any = group_advantages(x.reward, group, **ours)
            assert float(abs(theirs[0] - A[:, None] * x.mask).max()) < 1e-12


@pytest.mark.parametrize(("theirs", "kind"), [("kl", "k1"), ("mse", "k2"), ("low_var_kl", "k3")])
def test_kl_estimates_are_ours(theirs: str, kind: str) -> None:
    x = numbers(0)
    assert float(abs(verl.kl_penalty(x.logp, x.ref, theirs) - kl_estimate(x.logp, x.ref, kind=kind)).max()) < 1e-12
