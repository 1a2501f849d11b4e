"""Learned softmax policies as text on a console, beside what is exactly known.

pi (runs,S,A) final policies; J expected return from the start distribution; one number per run (runs,).
"""

from typing import TYPE_CHECKING

import numpy as np

from tabrl.learners.judged import Improved
from tabrl.learners.policies import Paths
from tabrl.learners.show import error, estimates, facts, short, spread
from tabrl.show import HEAD, label
from tabrl.types import F

if TYPE_CHECKING:
    from rich.console import Console


def decisions(out: "Console", x: Improved) -> None:
    """Print what the policies do in the first states, and what that costs by the exact action values."""
    mdp, pi, star = x.mdp, x.final, x.star
    states, rows = np.flatnonzero(~mdp.terminal).tolist(), []
    loss = np.where(mdp.legal, star.V[:, None] - star.Q, 0.0)
    loss[abs(loss) <= 2 * star.bound] = 0.0  # not known to differ
    for s in states[:HEAD]:
        a = int(np.bincount(pi[:, s].argmax(axis=1)).argmax())
        numbers = [f"{pi[:, s, a].mean():.4f}", short(error(pi[:, s, a])), f"{star.V[s]:.6g}", f"{loss[s, a]:.2g}"]
        rows.append([label(mdp.names.states, s), label(mdp.names.actions, a), *numbers])
    out.print(estimates(["state", "action", "probability", "s.e.", "V*", "V* - Q*"], rows))
    if len(states) > HEAD:
        lost = np.einsum("rsa,sa->rs", pi, loss)[:, states].mean(axis=0)
        out.print(f"… {len(states) - HEAD:,} more states; mean V* - Q* of the drawn action up to {lost.max():.3g}")
    out.print("action: the one that most runs prefer; V* - Q*: what it loses, exact; 0 for the best", soft_wrap=True)
    out.print()


def worths(out: "Console", x: Improved) -> None:
    """Print the exact return of the final policies, below the best there is."""
    J = x.curve[-1]
    rows = [
        ("J*", f"{x.J_star:.6g}  exact, bound {x.star.bound:.1g}"),
        ("J", f"{spread(J)}  exact return of the final softmax policy"),
        ("worst run", f"{float(J.min()):.4g}" if np.isfinite(J).all() else "never ends"),
        ("within 1 %", f"{x.near} of {len(J)} runs end within 1 % of J*"),
        ("uniform", f"{spread(np.array([x.start]))}  exact return of the uniform policy, where all runs begin"),
    ]
    out.print(facts(rows))


def diagnostics(out: "Console", x: Paths, *, clips: bool) -> None:
    """Print what the last updates were like."""
    rows = [("cosine", x.cosine[-1], "of its gradient estimate with the exact gradient, where both are not 0")]
    rows.append(("KL", x.kl[-1], "nats, mean KL(old || new) over the states of its batch"))
    rows.append(("entropy", x.entropy[-1], "nats, mean over the states of its batch"))
    if clips:
        rows.append(("clip fraction", x.clip_fraction[-1], "of its decisions, stopped by the clip"))
    shown = [(name, f"{numbers(y)}  {what}") for name, y, what in rows if np.isfinite(y).any()]
    if not shown:
        out.print("no update was made: the first batch was not complete at the end", soft_wrap=True)
        return
    out.print("last update, mean over runs:")
    out.print(facts(shown))


def numbers(y: F) -> str:
    """Mean and standard error over the runs that have a number, and how many these are where some have none."""
    good = y[np.isfinite(y)]
    text = f"{good.mean():.3g}" + (f" ± {error(good):.2g}" if len(good) > 1 else "")
    return text if len(good) == len(y) else f"{text} in {len(good)} of {len(y)} runs"
