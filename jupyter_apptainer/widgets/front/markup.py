"""A section as HTML and as text: what the widgets show, and what is shown where there are no widgets."""

# ruff: noqa: B905 - Python 3.9 has no `strict`
from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .model import Row, Section
from .pictures import draw_bar

# Colours are the theme's; the words behind the commas are for pages that have none. Forced colours are the system's.
STYLE = """<style>
.jpa-panel { color: var(--jp-ui-font-color1, inherit); }
.jpa-panel table.jpa-table { border-collapse: collapse; margin: 4px 0; text-align: left; font-size: 13px; }
.jpa-panel table.jpa-table caption { text-align: left; font-weight: 600; padding: 2px 0; color: inherit; }
.jpa-panel .jpa-table th, .jpa-panel .jpa-table td { padding: 2px 12px 2px 0; text-align: left; vertical-align: top; line-height: 1.4;
  border-bottom: 1px solid var(--jp-border-color2, currentColor); color: inherit; background: transparent; }
.jpa-panel .jpa-table th { white-space: nowrap; }
.jpa-panel .jpa-table td { overflow-wrap: anywhere; }
.jpa-panel .jpa-table tr.jpa-chosen th, .jpa-panel .jpa-table tr.jpa-chosen td { border-bottom: 2px solid var(--jp-brand-color1, currentColor); }
.jpa-panel .jpa-bars { display: grid; grid-template-columns: max-content 1fr; gap: 4px 12px; align-items: center; margin: 6px 0; }
.jpa-panel svg.jpa-bar { display: block; }
.jpa-panel .jpa-track { fill: var(--jp-layout-color2, transparent); stroke: currentColor; stroke-width: 1; }
.jpa-panel .jpa-part { fill: var(--jp-brand-color2, #4a90d9); }
.jpa-panel .jpa-full .jpa-part { fill: var(--jp-warn-color1, #c96a00); }
.jpa-panel .jpa-line { fill: none; stroke: currentColor; stroke-width: 1.5; }
.jpa-panel .jpa-error { border-left: 4px solid var(--jp-error-color1, #b71c1c); padding-left: 8px; }
.jpa-panel .jpa-good { border-left: 4px solid var(--jp-success-color1, #2e7d32); padding-left: 8px; }
.jpa-panel pre.jpa-output { max-height: 320px; overflow: auto; white-space: pre-wrap; background: transparent; color: inherit;
  border: 1px solid var(--jp-border-color2, currentColor); padding: 6px; font-size: 12px; }
.jpa-panel :focus-visible { outline: 2px solid var(--jp-brand-color1, Highlight); outline-offset: 1px; }
@media (forced-colors: active) { .jpa-panel .jpa-part { fill: Highlight; } .jpa-panel .jpa-track { fill: Canvas; } }
</style>"""


def render_html(section: Section, rows: Sequence[Row] | None = None, chosen: str | None = None) -> str:
    """Return notes, pictures and table. rows: those to show, by default all. chosen: the key of the row that is marked."""
    shown = section.rows if rows is None else rows
    notes = "".join(f"<p>{escape(note)}</p>" for note in section.notes)
    if not section.rows:
        return f"{notes}{_render_bars(section)}<p>{escape(section.empty)}</p>"
    return f"{notes}{_render_bars(section)}{_render_table(section, shown, chosen)}"


def render_facts(row: Row | None) -> str:
    """Return what else is known of a row."""
    if row is None or not row.facts:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in row.facts
    )
    return f'<table class="jpa-table"><caption>{escape(row.label)}</caption><tbody>{lines}</tbody></table>'


def render_message(text: str, *, is_error: bool) -> str:
    """Return a sentence that is read out when it appears."""
    if not text:
        return ""
    role, kind = ("alert", "error") if is_error else ("status", "good")
    return f'<div role="{role}" class="jpa-{kind}">{"<br>".join(map(escape, text.splitlines()))}</div>'


def render_output(title: str, text: str) -> str:
    """Return what a command has printed. It can be scrolled with the keyboard."""
    return f'<pre class="jpa-output" tabindex="0" role="region" aria-label="{escape(title)}">{escape(text)}</pre>'


def render_page(sections: Iterable[Section]) -> str:
    """Return all sections as one page that nothing moves in."""
    parts = "".join(
        f"<section><h3>{escape(section.title)}</h3>{render_html(section)}"
        f"{''.join(render_facts(row) for row in section.rows) if section.name == 'kernel' else ''}</section>"
        for section in sections
    )
    return f'<div class="jpa-panel">{STYLE}{parts}</div>'


def render_text(sections: Iterable[Section]) -> str:
    """Return the same for a terminal."""
    return "\n\n".join("\n".join(_iter_lines(section)) for section in sections)


def _iter_lines(section: Section) -> Iterable[str]:
    yield section.title
    yield "=" * len(section.title)
    yield from section.notes
    for bar in section.bars:
        yield f"{bar.label}: {bar.text}"
    if not section.rows:
        yield section.empty
        return
    lines = [section.headings, *(row.cells for row in section.rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(section.headings))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()


def _render_bars(section: Section) -> str:
    if not section.bars:
        return ""
    cells = "".join(
        f"<div>{draw_bar(bar)}</div><div>{escape(bar.label)}: {escape(bar.text)}</div>" for bar in section.bars
    )
    return f'<div class="jpa-bars">{cells}</div>'


def _render_table(section: Section, rows: Sequence[Row], chosen: str | None) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in section.headings)
    body = "".join(_render_row(row, is_chosen=row.key == chosen) for row in rows)
    hidden = len(section.rows) - len(rows)
    caption = escape(section.caption) + (f" ({hidden} not shown)" if hidden else "")
    return f'<table class="jpa-table"><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _render_row(row: Row, *, is_chosen: bool) -> str:
    first, *rest = row.cells
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
    mark = ' class="jpa-chosen"' if is_chosen else ""
    return f'<tr{mark}><th scope="row">{escape(first)}</th>{cells}</tr>'
