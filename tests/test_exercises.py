"""Exercises: right solutions pass, every known mistake is named, and nothing is given away."""

import ast
import copy
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exercise_files import SOLUTIONS, STYLES, right, wrong

from tabrl import verify
from tabrl.grading import check as grading
from tabrl.grading.bank_record import Exercise
from tabrl.grading.check import Returned, judge, trial
from tabrl.grading.exercises import EXERCISES, find, number, stub
from tabrl.grading.feedback import Feedback, Trial, feedback, short
from tabrl.grading.sandbox import LIMITS
from tabrl.verify.record import Case
from tabrl.verify.users import compare

A = Any
NAMES = list(EXERCISES)
RIGHT = {style: right(style) for style in STYLES}
WRONG = wrong()
QUICK = LIMITS._replace(seconds=2.0)

# what teachers see again and again, and the files that make it
LISTED = {
    "Bellman": "policy_values__transposed backup__transposed policy_values__terminal policy_values__axis backup__axis "
    "policy_values__alike policy_values__gamma",
    "dynamic programming": "backup__in_place optimal_policy__next_value optimal_values__lucky optimal_values__apart "
    "policy_values__outside backup__outside optimal_policy__once",
    "Monte Carlo": "first_visit_pairs__state first_visit_values__last first_visit_values__forwards "
    "first_visit_values__from_start returns__forwards",
    "TD(0)": "td0__terminal td0__time_limit td0__late td0__gamma td0__sign",
    "n-step": "n_step_td__off_by_one n_step_td__past_the_end n_step_td__exponent n_step_td__exponent_above "
    "n_step_td__tail",
    "lambda": "lambda_returns__sum lambda_returns__last_weight lambda_returns__no_monte_carlo td_lambda__not_reset "
    "td_lambda__gamma lambda_returns__gamma",
    "REINFORCE": "reinforce__whole reinforce__mean_times_sum reinforce__sign reinforce__fade",
    "baseline": "reinforce__action leave_one_out__action leave_one_out__in_sample",
    "actor-critic": "actor_critic__no_bootstrap actor_critic__attached actor_critic__half_attached",
    "GAE": "gae__next_discount gae__truncation critic_target__advantage critic_target__next_value",
    "importance sampling": "per_decision_returns__inverted per_decision_returns__inside per_decision_returns__order",
    "PPO": "ppo_clip__min_first ppo_clip__above ppo_clip__below ppo_clip__no_ratio ppo_clip__log",
    "KL": "kl__reversed k3__sign k3__direction",
    "GRPO": "group_advantages__batch group_advantages__ddof",  # and nan, below
    "DAPO": "token_mean__sequences kept_groups__shaped",
}


def called(name: str, f: Callable[..., A]) -> Feedback:
    """Judge a function without a process of its own."""
    exercise, values, reasons = find(name), [], []
    for case in exercise.cases():
        try:
            with np.errstate(all="ignore"):
                values.append(f(*copy.deepcopy(case.arguments)))
            reasons.append("")
        except Exception as error:
            values.append(None)
            reasons.append(f"it raises {type(error).__name__}: {error}")
    return judge(exercise, exercise.cases(), Returned(values, reasons))


# the list


def test_there_is_an_exercise_for_every_lesson_and_row() -> None:
    assert {x.lesson for x in EXERCISES.values()} == set(range(1, 22))
    assert {x.row for x in EXERCISES.values()} == {row for row in verify.ROWS}
    assert [x.lesson for x in EXERCISES.values()] == sorted(x.lesson for x in EXERCISES.values())
    assert [number(find(k)) for k in range(1, len(NAMES) + 1)] == list(range(1, len(NAMES) + 1))


@pytest.mark.parametrize(
    ("which", "message"), [("0", "1 to"), ("99", "1 to"), ("td1", "did you mean td0"), ("", "1 to")]
)
def test_an_unknown_exercise_is_refused(which: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(which)


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_a_file_to_start_from(name: str) -> None:
    exercise = find(name)
    text = stub(exercise)
    assert max(map(len, text.splitlines())) <= 110
    (f,) = (x for x in ast.parse(text).body if isinstance(x, ast.FunctionDef))
    assert f.name == name
    assert [x.arg for x in f.args.args] == exercise.arguments.split(", ")
    assert all(len(case.arguments) == len(f.args.args) for case in exercise.cases())
    doc = " ".join((ast.get_docstring(f) or "").split())
    assert " ".join(exercise.equation.split()) in doc
    assert all(re.search(rf"\b{x.arg}\b", doc) for x in f.args.args)
    scope: dict[str, A] = {}
    exec(text, scope)
    feedback = called(name, scope[name])
    assert (feedback.right, feedback.reason) == (0, "it is not written yet")


# right ones


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", NAMES)
def test_a_right_solution_passes(name: str, style: str) -> None:
    f = RIGHT[style][name]
    assert list(inspect.signature(f).parameters) == find(name).arguments.split(", ")
    found = called(name, f)
    assert found.passed, found.text
    assert found.cases == found.right >= 7
    assert found.score == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_written_differently(name: str) -> None:
    sources = {style: ast.dump(ast.parse(inspect.getsource(RIGHT[style][name]))) for style in STYLES}
    assert len(set(sources.values())) == len(STYLES)


def test_right_files_pass_in_their_own_process() -> None:
    for style in STYLES:
        for part in ("prediction", "gradients", "tokens"):
            file = SOLUTIONS / f"{style}_{part}.py"
            found = grading.check_file(file, grading.exercises_of(file))
            assert [x.text for x in found if not x.passed] == []
            assert len(found) >= 9


# wrong ones


def mistakes(exercise: Exercise) -> dict[tuple[str, int], dict[str, A]]:
    """The wrong answers of each form of each mistake, by case."""
    found: dict[tuple[str, int], dict[str, A]] = {}
    for case in exercise.cases():
        names = [name for name, _ in case.mistakes()]
        for k, (name, answer) in enumerate(case.mistakes()):
            found.setdefault((name, names[:k].count(name)), {})[case.name] = answer
    return found


def answered(exercise: Exercise, values: Sequence[A]) -> list[Trial]:
    """Trials of numbers that are compared as they are."""
    row = verify.find(exercise.row)
    cases = zip(exercise.cases(), values, strict=True)
    return [
        Trial(c, compare(row, f"{exercise.name} on {c.name}", c, v, 1e-6 * max(1.0, float(abs(c.expected).max()))), v)
        for c, v in cases
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_is_diagnosed_as_itself_and_nothing_is_given_away(name: str) -> None:
    exercise = find(name)
    assert len(mistakes(exercise)) >= 5
    diagnosed_as_themselves(exercise)


def diagnosed_as_themselves(exercise: Exercise) -> None:
    """Each mistake, when its own numbers are handed in."""
    bank = mistakes(exercise)
    for (mistake, _), answers in bank.items():
        values = [answers.get(case.name, case.expected) for case in exercise.cases()]
        found = feedback(exercise, answered(exercise, values))
        assert not found.passed
        assert found.mistake == mistake, found.text
        assert f"Your numbers are those of this mistake: {mistake}." in found.text
        keeps_secret(exercise, found)


def keeps_secret(exercise: Exercise, found: Feedback) -> None:
    """One entry is told, and no more; the arguments are not the answer."""
    assert len(re.findall(r"is expected", found.text)) == 1
    shown = re.search(r"The smallest case that shows it: (.*)", found.text)
    assert shown
    (case,) = (x for x in exercise.cases() if x.name == shown[1])
    told = re.search(r"(?:At|For) .* (?:you have|your policy is) \S+; (\S+) is expected", found.text)
    assert told
    near = [float(told[1]) == pytest.approx(x, rel=1e-5, abs=1e-9) for x in case.expected.ravel()]
    assert any(near)
    if case.expected.size > 1 and not any(np.array_equal(x, case.expected) for x in case.arguments):
        assert short(case.expected) not in found.text


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_file_is_told_its_mistake(name: str) -> None:
    x = WRONG[name]
    found = called(x.exercise, x.function)
    assert not found.passed
    assert x.words in found.mistake, found.text
    assert "something else" not in found.text
    assert f"Equation {find(x.exercise).row}: " in found.text
    keeps_secret(find(x.exercise), found)


def test_what_teachers_see_is_all_there() -> None:
    listed = [name for names in LISTED.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(WRONG)


# what else may be wrong


def test_an_unknown_mistake_shows_the_first_entry_of_the_smallest_case() -> None:
    found = called("returns", lambda r, discount: np.arange(len(r)) + 7.5)
    assert found.mistake == ""
    assert found.reason == "At t=0 you have 7.5; 1 is expected."
    assert "The smallest case that shows it: a single step\n    r = [1]\n    discount = [0]\n" in found.text

    def last_wrong(r: A, discount: A) -> A:
        G = RIGHT["arrays"]["returns"](r, discount)
        G[-1] += len(r) > 1
        return G

    assert "At t=5 you have" in called("returns", last_wrong).text


def test_two_mistakes_at_once() -> None:
    """Terminal values are used, and a time limit is an end: each shows on its own cases."""

    def both(V: A, s: A, r: A, discount: A, alpha: float) -> A:
        cut = discount[-1] > 0
        discount = np.full(len(r), discount.max())
        discount[-1] *= not cut
        return RIGHT["loops"]["td0"](V, s, r, discount, alpha)

    found = called("td0", both)
    assert re.search(r"On \d of the \d cases that fail", found.text)
    assert "There is something else as well." in found.text
    assert "value of a terminal state" in found.mistake or "time limit" in found.mistake


def test_a_mistake_that_would_spoil_a_right_answer_is_not_named() -> None:
    def sometimes(r: A, discount: A) -> A:
        if len(set(discount.tolist())) > 2:
            return np.cumsum(r[::-1])[::-1]  # gamma forgotten, but on one case alone
        return RIGHT["arrays"]["returns"](r, discount)

    found = called("returns", sometimes)
    assert (found.cases - found.right, found.mistake) == (1, "")


def test_nonsense_is_not_taken_for_a_mistake() -> None:
    """But for zeros that are the mistake's own."""
    for exercise in EXERCISES.values():
        rng = np.random.default_rng(7)
        zeros = [np.zeros(case.expected.shape) for case in exercise.cases()]
        noise = [case.expected + rng.normal(size=case.expected.shape) for case in exercise.cases()]
        found = feedback(exercise, answered(exercise, noise))
        assert (found.mistake, found.right) == ("", 0)
        found = feedback(exercise, answered(exercise, zeros))
        assert found.mistake == "" or exercise.name in ("leave_one_out", "copy_reward"), found.text


def test_iteration_that_stops_early_is_told_so() -> None:
    def early(P: A, r: A, gamma: float) -> A:
        V = np.zeros(len(r))
        while True:
            V, before = (r + gamma * P @ V).max(axis=1), V
            if abs(V - before).max() < 1e-4:
                return V

    assert "it stopped too early" in called("optimal_values", early).text


def nan_groups(reward: A, group: A) -> A:
    out = np.zeros(len(reward))
    for g in set(group.tolist()):
        x = reward[group == g]
        out[group == g] = (x - x.mean()) / x.std(ddof=1) if np.ptp(x) else np.nan
    return out


@pytest.mark.parametrize(
    ("name", "f", "words"),
    [
        ("group_advantages", nan_groups, "teaches nothing, its advantages are 0"),
        ("kl", lambda p, q: (p * np.log(p / q)).sum(axis=1), "0 log 0 is 0, not nan"),
        ("backup", lambda P, r, g, pi, V: (pi * (r + g * P @ V)).sum(axis=0)[:1], "runs along the last axis"),
        ("returns", lambda r, discount: None, "it returns NoneType; an array of shape"),
        ("returns", lambda r, discount: r.sum(), "the result has shape (); (1,) is expected"),
        ("returns", lambda r, discount: r + 1j, "complex numbers"),
        ("returns", lambda r, discount: {"G": r}, "it returns dict"),
        ("returns", lambda r, discount: [[1.0], [1.0, 2.0]], "it returns list"),
        ("returns", lambda r, discount: 1 / 0, "it raises ZeroDivisionError: division by zero"),
        ("optimal_policy", lambda P, r, gamma: 2 * np.ones(r.shape), "a distribution over actions"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_named(name: str, f: Callable[..., A], words: str) -> None:
    found = called(name, f)
    assert not found.passed
    assert words in found.text


def test_no_function_passes_by_chance() -> None:
    """Neither zeros, nor the arguments, nor nothing."""
    for exercise in EXERCISES.values():
        shapes = [case.shape for case in exercise.cases()]
        assert not judge(exercise, exercise.cases(), Returned([np.zeros(x) for x in shapes], [""] * len(shapes))).passed
        for k in range(len(exercise.arguments.split(", "))):
            values = [case.arguments[k] for case in exercise.cases()]
            assert not judge(exercise, exercise.cases(), Returned(values, [""] * len(values))).passed


ODD = [
    1e308, -1e308, 5e-324, 2**63, True, "G", "", [], {}, (1, 2), [[[[1.0]]]], [None], np.float32(1), np.zeros(0),
    np.zeros((1000, 3)), [1, [2]], 1j, [1j], np.nan, -np.inf,
]  # fmt: skip


def test_no_value_breaks_the_grader() -> None:
    for exercise in EXERCISES.values():
        count = len(exercise.cases())
        for value in ODD:
            assert not judge(exercise, exercise.cases(), Returned([value] * count, [""] * count)).passed
        for value in (1e308, -1e308, 5e-324, np.nan, True, 2**62):
            filled = [np.full(case.shape, value) for case in exercise.cases()]
            found = judge(exercise, exercise.cases(), Returned(filled, [""] * count))
            assert not found.passed, exercise.name
            assert len(found.text) < 3000


def test_a_small_error_is_caught_and_rounding_is_not() -> None:
    for exercise in EXERCISES.values():
        if exercise.name == "optimal_policy":  # judged on its values
            continue
        for case, sign in itertools.product(exercise.cases()[:3], (1, -1)):
            scale = max(1.0, float(abs(case.expected).max()))
            for error, passes in ((1e-5, False), (1e-8, True)):
                value = case.expected.copy()
                value[(-1,) * value.ndim] += sign * error * scale
                assert trial(exercise, case, value, "").check.passed is passes, (exercise.name, case.name)


def test_feedback_is_the_same_every_time() -> None:
    for name in ("td0__late", "policy_values__axis", "grpo_loss__sum"):
        x = WRONG[name]
        assert called(x.exercise, x.function) == called(x.exercise, x.function)


# a teacher's cases

TEACHER = '''
import numpy as np
from tabrl.verify import Case
from tabrl.verify.cases_td import td_case
from tabrl.verify.recorded import Recording


def cases(name):
    """Cases from a seed: the builders of tabrl.verify know the answer and the mistakes."""
    if name == "returns":
        r = np.array([2.0, 3.0])
        return [Case("mine", (r, np.array([0.5, 0.0])), (2,), "t", np.array([3.5, 3.0]), lambda: [("you guess", r)])]
    if name != "td0":
        return []
    rng = np.random.default_rng(2027)
    s, r = np.append(rng.integers(0, 4, 6), 4), rng.integers(-3, 4, 6) / 2
    discount = np.where(s[1:] == 4, 0.0, 0.75)
    return [td_case(Recording("private", np.array([1.0, 2, 3, 4, 9]), s, r, discount, 0.5))]
'''


def test_private_cases_are_judged_and_not_shown(tmp_path: Path) -> None:
    teacher = tmp_path / "private.py"
    teacher.write_text(TEACHER)
    cases = grading.private_cases(teacher)
    file = tmp_path / "work.py"
    file.write_text(
        "import numpy as np\n"
        "def returns(r, discount):\n"
        "    if len(r) == 2: return r\n"
        "    return np.array([sum(np.prod(discount[t:k]) * r[k] for k in range(t, len(r))) for t in range(len(r))])\n"
    )
    (found,) = grading.check_file(file, [find("returns")], private=cases)
    assert (found.right, found.cases, found.mistake) == (7, 8, "you guess")
    assert "one of your teacher's own cases" in found.text
    assert "3.5" not in found.text
    assert "mine" not in found.text
    assert grading.check(find("returns"), file).passed

    exercise = find("td0")
    every = [*exercise.cases(), *cases("td0")]
    forgets = [WRONG["td0__terminal"].function(*copy.deepcopy(x.arguments)) for x in every]
    found = judge(exercise, every, Returned(forgets, [""] * len(every)))
    assert "value of a terminal state" in found.mistake
    assert "something else" not in found.text


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1", "has no function 'cases'"), ("def cases(name): return [1]", "a tabrl.verify.Case is expected")],
)
def test_what_is_no_case_is_refused(tmp_path: Path, text: str, message: str) -> None:
    teacher = tmp_path / "private.py"
    teacher.write_text(text)
    with pytest.raises(ValueError, match=message):
        grading.check_file(teacher, [find("returns")], private=grading.private_cases(teacher))


DOCS = Path(__file__).parent.parent / "docs" / "teaching.md"


def test_the_examples_of_the_documentation_work(tmp_path: Path) -> None:
    private, mine = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for name, text in (("private.py", private), ("mine.py", mine)):
        (tmp_path / name).write_text(text)
    cases = grading.private_cases(tmp_path / "private.py")
    assert (len(cases("td0")), cases("gae")) == (10, [])
    every = [*find("td0").cases(), *cases("td0")]
    for f, passes in ((RIGHT["arrays"]["td0"], True), (WRONG["td0__terminal"].function, False)):
        found = judge(find("td0"), every, Returned([f(*copy.deepcopy(x.arguments)) for x in every], [""] * len(every)))
        assert found.passed is passes
    try:
        assert list(grading.private_cases(tmp_path / "mine.py")("td0")) == []
        (name,) = set(EXERCISES) - set(NAMES)
        assert len(mistakes(find(name))) == 4
        diagnosed_as_themselves(find(name))
        assert called(name, lambda c, gamma, n: c * (1 - gamma**n) / (1 - gamma)).passed
        assert number(find(name)) == len(NAMES) + 1
        with pytest.raises(ValueError, match="a function's name that is not taken"):
            grading.private_cases(tmp_path / "mine.py")
    finally:
        for name in set(EXERCISES) - set(NAMES):
            del EXERCISES[name]


def test_the_course_in_the_documentation_has_every_exercise_once() -> None:
    weeks = [line.split("|") for line in DOCS.read_text().splitlines() if re.match(r"\| \d \|", line)]
    named = [name for week in weeks for name in re.findall(r"`(\w+)`", week[3])]
    assert sorted(named) == sorted(NAMES)
    for week in weeks:
        assert int(week[4]) == sum(find(name).minutes for name in re.findall(r"`(\w+)`", week[3]))


def test_the_transcript_in_the_documentation_is_what_is_said() -> None:
    transcript = re.search(r"```console\n.*?\n(td0: .*?)\n```", DOCS.read_text(), re.DOTALL)
    assert transcript
    assert transcript[1] == called("td0", WRONG["td0__terminal"].function).text


def test_a_case_has_a_shape() -> None:
    for exercise in EXERCISES.values():
        for case in exercise.cases():
            assert isinstance(case, Case)
            assert exercise.name == "optimal_policy" or case.expected.shape == case.shape
            assert np.isfinite(case.expected).all()


# in a process of its own

BAD = {
    "ties": """
import numpy as np
def optimal_policy(P, r, gamma):
    best = [0] * len(r)
    while True:  # ties may swap for ever
        V = np.linalg.solve(np.eye(len(r)) - gamma * P[np.arange(len(r)), best], r[np.arange(len(r)), best])
        q = r + gamma * P @ V
        new = [int([a for a in np.flatnonzero(x > x.max() - 1e-9) if a != b or len(x) < 3 or x.argmin() == a
                    or (x > x.max() - 1e-9).sum() == 1][0]) for x, b in zip(q, best)]
        if new == best:
            return np.eye(r.shape[1])[best]
        best = new
""",
    "import": "import tabrl\ndef returns(r, discount): return tabrl.returns.discounted_sum(r, discount)\n",
    "late import": "def returns(r, discount):\n    from tabrl import returns as x\n    return x.discounted_sum(r)\n",
    "in turn": """
import numpy as np, os
def returns(r, discount):
    while True: pass
def policy_values(P, r, gamma, pi): os._exit(0)
def td0(V, s, r, discount, alpha):
    for t in range(len(r)):
        V[s[t]] += alpha * (r[t] + discount.max() * V[s[t + 1]] - V[s[t]])
    return V
""",
}


def graded(tmp_path: Path, name: str) -> list[Feedback]:
    file = tmp_path / "work.py"
    file.write_text(BAD[name])
    return grading.check_file(file, grading.exercises_of(file), limits=QUICK)


def test_ties_that_swap_for_ever(tmp_path: Path) -> None:
    (found,) = graded(tmp_path, "ties")
    assert found.score == 0
    assert found.reason == "it takes more than 2 s"
    assert "equally good actions may swap places for ever" in found.text


@pytest.mark.parametrize("name", ["import", "late import"])
def test_the_answer_cannot_be_imported(tmp_path: Path, name: str) -> None:
    (found,) = graded(tmp_path, name)
    assert found.score == 0
    assert "write the recursion yourself" in found.reason


def test_a_function_that_ends_the_process_does_not_harm_the_next(tmp_path: Path) -> None:
    endless, leaves, td0 = graded(tmp_path, "in turn")
    assert endless.reason == "it takes more than 2 s"
    assert "leaves Python" in leaves.reason
    assert "value of a terminal state" in td0.mistake
    assert endless.score == leaves.score == td0.score == 0
