"""The parts every lesson is made of: head, equation, prediction, picture, correction, exercise, questions, sources.

Each function returns one marimo output. A lesson says what is in it, and nothing about how it looks.
"""

import ast
import base64
import html
import inspect
import re
from collections.abc import Callable
from inspect import cleandoc
from typing import Any

import marimo as mo
from matplotlib.figure import Figure

from tabrl.grading.exercises import EXERCISES
from tabrl.lessons.contents import lessons
from tabrl.plots import image

DPI = 150  # of pictures; the page shows them at most as wide as its text
SOURCE = "*The Complete Math Collection for LLM RL Fine-Tuning* (S. Wong, May 2025)"


def head(number: int, able: str) -> mo.Html:
    """Title, minutes, what should be known before, and what the reader will be able to do: a list in Markdown."""
    x = lessons(number=number)[number]
    facts = f"{x.minutes} minutes · after {x.after} · {', '.join(x.rows)} in the ledger of equations"
    return mo.md(f"# {x.number} · {x.title}\n\n<small>{facts}</small>\n\n**Afterwards you can**\n\n{cleandoc(able)}")


def equation(where: str, printed: str, note: str, *functions: Callable[..., Any]) -> mo.Html:
    """An equation as the source prints it, in TeX, and the functions of the library that compute it.

    where: the place in the source, such as "section 1.1". note: what to mind between print and code.
    """
    text = f"**As printed** ({where} of the source)\n\n$$\n{cleandoc(printed)}\n$$\n\n{cleandoc(note)}"
    return code(f"{text}\n\n**As code** (the library's own)", *functions)


def code(text: str, *functions: Callable[..., Any]) -> mo.Html:
    """A text, and below it the source of functions of the library."""
    return mo.md("\n\n".join([cleandoc(text), *map(listing, functions)]))


def listing(function: Callable[..., Any]) -> str:
    """Name and source of a function of the library, as Markdown; its docstring is left out.

    >>> from tabrl.returns import discounted_sum
    >>> print(listing(discounted_sum))  # doctest: +ELLIPSIS
    `tabrl.returns.discounted_sum`
    <BLANKLINE>
    ```python
    def discounted_sum(x: F, discount: F, tail: float = 0.0) -> F:
        if x.shape != discount.shape or x.ndim != 1:
    ...
    """
    plain = inspect.unwrap(getattr(function, "py_func", function))  # what a compiled function was made of
    return f"`{plain.__module__}.{plain.__qualname__}`\n\n```python\n{bare(inspect.getsource(plain))}\n```"


def bare(source: str) -> str:
    """Drop the docstring of a function that starts at the left margin, and what is said to checkers of types only.

    >>> print(bare(chr(10).join(["def f(x):", "    'Double.'", "    return 2 * x"])))
    def f(x):
        return 2 * x
    """
    lines, function = source.splitlines(), ast.parse(source).body[0]
    first = function.body[0] if isinstance(function, ast.FunctionDef) else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(re.sub(r"  # (type: ignore|noqa).*", "", line) for line in lines)


def predict(question: str, guess: Any) -> mo.Html:
    """A question to answer before anything is moved; guess: a `mo.ui.radio` with the answers to choose from."""
    return mo.callout(mo.vstack([mo.md(f"**Predict first.** {cleandoc(question)}"), guess]), kind="info")


def verdict(guess: Any, right: str, why: str) -> mo.Html:
    """What to say to a guess: nothing before it is made, then whether it holds, and why."""
    if guess.value is None:
        return mo.md("*Choose an answer above; then try it in the figure.*")
    good = guess.value == right
    said = "**As you said.**" if good else f"**Not so: {right}.**"
    return mo.callout(mo.md(f"{said} {cleandoc(why)}"), kind="success" if good else "warn")


def picture(figure: Figure, alt: str) -> mo.Html:
    """A figure as an image of the page itself: nothing is fetched. alt: what it shows, for those who cannot see it."""
    png = base64.b64encode(image(figure, dpi=DPI)).decode("ascii")
    return mo.Html(f'<img src="data:image/png;base64,{png}" alt="{html.escape(alt, quote=True)}" style="width:100%">')


def correction(number: int, what: str, figure: Figure, alt: str) -> mo.Html:
    """A correction to the source: what is right, and the experiment that shows it."""
    note = f"<small>Correction {number}; its numbers: `python -m tabrl.lessons.correction_{number}`</small>"
    text = f"## Where the source needs a correction\n\n{cleandoc(what)}\n\n{note}"
    return mo.vstack([mo.md(text), picture(figure, alt)])


def exercise(number: int, what: str) -> mo.Html:
    """What to write oneself, and the commands that give the stubs of all exercises of the lesson."""
    mine = [x for x in EXERCISES.values() if x.lesson == number]
    rows = "\n".join(f"| `tabrl exercise start {x.name}` | {x.title} | {x.minutes} minutes |" for x in mine)
    table = f"| command | to write | takes |\n|:--|:--|:--|\n{rows}"
    return mo.md(f"## Now you\n\n{cleandoc(what)}\n\n{table}\n\nThe file that it writes says how to have it checked.")


def questions(text: str) -> mo.Html:
    """Questions whose answers are folded; in the text a question is a heading `### …`, its answer stands below."""
    answers = {f"**{question}**": mo.md(answer) for question, answer in folded(text).items()}
    return mo.vstack([mo.md("## Questions"), mo.accordion(answers, multiple=True)])


def folded(text: str) -> dict[str, str]:
    """Split a text at its headings `### …`: heading to what stands below it."""
    pairs = (block.partition("\n") for block in re.split(r"^### ", cleandoc(text), flags=re.MULTILINE)[1:])
    return {heading.strip(): answer.strip() for heading, _, answer in pairs}


def sources(where: str, others: str) -> mo.Html:
    """Where the equations come from: sections of the source, then books and papers, a list in Markdown."""
    return mo.md(f"## Sources\n\n- {SOURCE}, {where}\n{cleandoc(others)}")
