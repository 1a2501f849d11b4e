"""A report as one HTML file that needs nothing else: no network, no script, no font.

A page is a title, an introduction and a list of sections; a section is a list of blocks: text, preformatted
text, a table or a picture. Later pages (learners, language models) are made of the same parts.
"""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias


class Text(NamedTuple):
    """A paragraph; `strong` words are set off in front."""

    text: str
    strong: str = ""


class Pre(NamedTuple):
    """Text whose spacing matters."""

    text: str


class Link(NamedTuple):
    """A word that leads to a section, of this page or of another file beside it."""

    text: str
    anchor: str
    page: str = ""  # file name; this page unless given


Cell: TypeAlias = str | Link


class Table(NamedTuple):
    """Rows of cells; all but the `left` columns are aligned to the right. Rows in `bad` are set off."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: Sequence[int] = (0,)
    caption: str = ""
    bad: Sequence[int] = ()


class Image(NamedTuple):
    """A PNG image with its text alternative and its width in CSS pixels."""

    png: bytes
    alt: str
    width: int = 640


class Picture(NamedTuple):
    """Images under one caption, side by side where there is room."""

    images: Sequence[Image]
    caption: str = ""


class Links(NamedTuple):
    """A paragraph of links, one after the other."""

    links: Sequence[Link]


Block: TypeAlias = Text | Pre | Table | Picture | Links


class Section(NamedTuple):
    """A titled part of a page."""

    title: str
    anchor: str
    blocks: Sequence[Block]


class Page(NamedTuple):
    """Everything in one file."""

    title: str
    blocks: Sequence[Block]
    sections: Sequence[Section]


STYLE = """
:root{--ink:#1d2430;--soft:#5b6472;--line:#d9dde3;--paper:#fff;--panel:#f5f6f8;--link:#0b5cad;--bad:#b02a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ec;--soft:#a3abb8;--line:#3a414d;--paper:#15181d;
--panel:#1e232a;--link:#7ab8ff;--bad:#ff9466}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:62rem;padding:1.2rem 1rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.8rem;line-height:1.2;margin:.4em 0 .6em}
h2{font-size:1.3rem;margin:2.6rem 0 .5rem;padding-top:.9rem;border-top:1px solid var(--line)}
p{max-width:46rem;margin:.5rem 0}
a{color:var(--link)}
.top{font-size:.85rem;font-weight:400;margin-left:.7rem}
.links a{white-space:nowrap}
.scroll{overflow-x:auto;margin:.9rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
.note{color:var(--soft);font-size:.88rem;margin-top:-.4rem}
th,td{padding:.28rem .8rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{font-weight:600;color:var(--soft);border-bottom:2px solid var(--line)}
th.l,td.l{text-align:left}
td.w{white-space:normal;min-width:14rem}
tr.bad td,tr.bad th{color:var(--bad);font-weight:600}
tbody th{font-weight:500}
pre{background:var(--panel);padding:.7rem .9rem;overflow-x:auto;font-size:.85rem;line-height:1.35;border-radius:6px}
figure{margin:1.1rem 0;background:#fff;border:1px solid var(--line);border-radius:8px;padding:.8rem;color:#1d2430}
.row{display:flex;flex-wrap:wrap;justify-content:center;gap:.4rem}
figure img{max-width:100%;height:auto}
figcaption{font-size:.88rem;color:#4a525f;margin-top:.5rem}
"""


def render(page: Page) -> str:
    """Write a page as HTML.

    >>> text = render(Page("A & B", [Text("hello")], [Section("One", "one", [Pre("x")])]))
    >>> "<h1 id='top'>A &amp; B</h1>" in text, "http" in text
    (True, False)
    """
    body = "\n".join([*map(block, page.blocks), *map(section, page.sections)])
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>\n"
        f"<title>{html.escape(page.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n<h1 id='top'>{html.escape(page.title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(part: Section) -> str:
    """Write a section with its heading, and a way back to the top."""
    title = f"{html.escape(part.title)}<a class='top' href='#top'>contents</a>"
    blocks = "\n".join(map(block, part.blocks))
    return f"<section id='{html.escape(part.anchor)}'>\n<h2>{title}</h2>\n{blocks}\n</section>"


def block(part: Block) -> str:
    """Write one block."""
    if isinstance(part, Text):
        strong = f"<strong>{html.escape(part.strong)}</strong> " if part.strong else ""
        return f"<p>{strong}{html.escape(part.text)}</p>"
    if isinstance(part, Pre):
        return f"<pre>{html.escape(part.text)}</pre>"
    if isinstance(part, Links):
        return "<p class='links'>" + " · ".join(map(cell, part.links)) + "</p>"
    return table(part) if isinstance(part, Table) else picture(part)


def table(part: Table) -> str:
    """Write a table; the first cell of a row is its heading. Long text may wrap."""
    side = [" class='l'" if i in part.left else "" for i in range(len(part.header))]
    head = "".join(f"<th scope='col'{c}>{html.escape(name)}</th>" for name, c in zip(part.header, side, strict=True))
    rows = []
    for i, row in enumerate(part.rows):
        first = f"<th scope='row'{side[0]}>{cell(row[0])}</th>"
        rest = "".join(
            f"<td{' class=' + chr(39) + 'l w' + chr(39) if len(str(x)) > 40 else c}>{cell(x)}</td>"
            for x, c in zip(row[1:], side[1:], strict=True)
        )
        rows.append(f"<tr{' class=' + chr(39) + 'bad' + chr(39) if i in part.bad else ''}>{first}{rest}</tr>")
    note = f"\n<p class='note'>{html.escape(part.caption)}</p>" if part.caption else ""
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>"
    return f"<div class='scroll'><table>{inner}</table></div>{note}"


def cell(x: Cell) -> str:
    """Write the content of a cell."""
    if isinstance(x, Link):
        return f"<a href='{html.escape(x.page)}#{html.escape(x.anchor)}'>{html.escape(x.text)}</a>"
    return html.escape(x)


def picture(part: Picture) -> str:
    """Write images, embedded, with their caption."""
    images = "".join(
        f"<img src='data:image/png;base64,{base64.b64encode(x.png).decode('ascii')}' "
        f"alt='{html.escape(x.alt)}' width='{x.width}'>"
        for x in part.images
    )
    caption = f"\n<figcaption>{html.escape(part.caption)}</figcaption>" if part.caption else ""
    return f"<figure><div class='row'>{images}</div>{caption}</figure>"
