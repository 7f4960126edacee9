"""The report as one HTML file that needs nothing else: the Markdown's text and tables, and the pictures."""

import html
import re
from collections.abc import Iterator, Sequence

from edgewright_pipelines.study import plots
from edgewright_pipelines.study.results import Results
from edgewright_pipelines.study.settings import Loaded
from edgewright_pipelines.study.summary import Summary

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: left; white-space: nowrap; }
th { background: #f2f4f7; }
svg { max-width: 100%; height: auto; }
"""


def render(loaded: Loaded, results: Results, summary: Summary, markdown: str) -> str:
    """The whole page; `markdown` is its text."""
    pictures = [("Size, time and quality", plots.pareto(summary))]
    pictures += [
        (f"F1 against ratio: {family.name}", plots.against_ratio(summary, family.name))
        for family in loaded.study.families
    ]
    for name in summary.best.values():
        variant = next(entry for entry in results.variants if entry.name == name)
        if variant.by_day:
            pictures.append((f"Confusion: {name}", plots.confusion(variant)))
    figures = "\n".join(f"<h2>{html.escape(title)}</h2>\n{svg}" for title, svg in pictures)
    body = "\n".join(_blocks(markdown.splitlines()))
    title = html.escape(loaded.study.name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n{figures}\n</body></html>\n"
    )


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    """The few forms that the report uses: headings, tables, lists and paragraphs."""
    waiting: list[str] = []
    for line in [*lines, ""]:
        kind = _kind(line)
        if waiting and (kind != _kind(waiting[-1]) or kind == "heading"):
            yield _block(waiting)
            waiting = []
        if line.strip():
            waiting.append(line)


def _kind(line: str) -> str:
    if line.startswith("#"):
        return "heading"
    return {"|": "table", "*": "list"}.get(line[:1], "text" if line.strip() else "nothing")


def _block(lines: Sequence[str]) -> str:
    kind = _kind(lines[0])
    if kind == "heading":
        level = len(lines[0]) - len(lines[0].lstrip("#"))
        return f"<h{level}>{_inline(lines[0].lstrip('# '))}</h{level}>"
    if kind == "list":
        return "<ul>" + "".join(f"<li>{_inline(line.lstrip('* '))}</li>" for line in lines) + "</ul>"
    if kind == "table":
        head, _, *rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
        top = "".join(f"<th>{_inline(part)}</th>" for part in head)
        body = "".join("<tr>" + "".join(f"<td>{_inline(part)}</td>" for part in row) + "</tr>" for row in rows)
        return f"<table><tr>{top}</tr>{body}</table>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
