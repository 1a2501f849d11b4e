"""Exercises of lesson 8: control."""

from tabrl.grading.bank_prediction import EPISODE
from tabrl.grading.bank_record import Exercise
from tabrl.verify import cases_control

EXERCISES = (
    Exercise(
        "q_learning", "Q, s, a, r, discount, alpha", "Q-learning along an episode", 8, "E1.5", 15,
        "Q(s[t],a[t]) <- Q(s[t],a[t]) + alpha (r[t] + discount[t] max over b of Q(s[t+1],b) - Q(s[t],a[t]))",
        f"Q: (S,A) action values before. a: (T,) actions. alpha: step size.{EPISODE}Returns Q (S,A) after one pass.",
        special=cases_control.q_cases,
    ),
)  # fmt: skip
