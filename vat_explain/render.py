"""Explanations for people: coloured words in a terminal, and one static HTML page.

Both show every character of the text, and colour words or tokens by their score relative to the strongest one of the
same explanation: blue speaks for the target, orange against it.
"""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from vat_explain.errors import InputError
from vat_explain.explanation import Explanation, Granularity, ScoredSpan, ScoreUnit, scale_to_unit
from vat_explain.files import write_atomically

TOP_WORDS = 5
"""How many words are also listed with their scores, for those who cannot see the colours."""

Rationale = Sequence[tuple[int, int]]
"""Start and end, in characters of the text, of the stretches known to decide its label."""

_Rgb = tuple[int, int, int]
# Terminals are light or dark: all three colours, and what lies between them, can be read on both.
_NEUTRAL: _Rgb = (128, 128, 128)
_FOR: _Rgb = (24, 132, 226)
_AGAINST: _Rgb = (220, 90, 0)

# Control characters would act on the terminal: show pictures of them. Line feed and tab are harmless.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


@dataclass(frozen=True)
class _Piece:
    """A stretch of a text: a word, tokens that share characters, or the gap between them (no spans)."""

    start: int
    end: int
    spans: tuple[ScoredSpan, ...] = ()
    strength: float = 0.0


def render_terminal(explanation: Explanation, console: Console | None = None, unit: Granularity = "words") -> None:
    """Print an explanation with coloured words.

    Parameters
    ----------
    explanation : Explanation
        What to print. Control characters in it are shown as pictures, and markup as it stands.
    console : rich.console.Console, optional
        Where to print; by default standard output.
    unit : {"words", "tokens"}, default "words"
        What is coloured.

    Raises
    ------
    InputError
        If `unit` is unknown.
    """
    pieces = _pieces(explanation, unit)
    lines = [Text.assemble((_shown(_prediction(explanation)), "bold"), "  ", (_shown(_about(explanation)), "dim"))]
    for number, source in enumerate(_texts(explanation)):
        line = Text()
        for piece in pieces[number]:
            style = _colour(piece.strength) if piece.spans else None
            line.append(_shown(source[piece.start : piece.end]), style)
        lines.append(line)
    strongest = ", ".join(f"{span.text} {_amount(span.score, explanation.unit)}" for span in _strongest(explanation))
    legend = Text.assemble((_shown(f"strongest: {strongest or 'none'}"), "dim"), "   ")
    if explanation.unit == "share":
        legend.append("important", _colour(1.0))
    else:
        legend.append("for", _colour(1.0)).append(" ").append("against", _colour(-1.0))
    console = console or Console()
    for line in [*lines, legend]:
        console.print(line)


def render_html(
    explanations: Sequence[Explanation],
    title: str = "Explanations",
    unit: Granularity = "words",
    rationales: Sequence[Rationale] | None = None,
) -> str:
    """Return one static HTML page: no scripts, nothing loaded from elsewhere, everything escaped.

    Parameters
    ----------
    explanations : sequence of Explanation
        What to show, in this order.
    title : str
        Heading of the page.
    unit : {"words", "tokens"}, default "words"
        What is coloured.
    rationales : sequence of sequence of (int, int), optional
        For each explanation, the known rationale of its text, which is underlined.

    Raises
    ------
    InputError
        If `unit` is unknown, `rationales` are not one for each explanation, or one lies outside its text.
    """
    if rationales is not None and len(rationales) != len(explanations):
        raise InputError(f"there are {len(rationales)} rationales for {len(explanations)} explanations; give one each")
    articles = [
        article_html(number, explanation, unit, rationales[number - 1] if rationales is not None else ())
        for number, explanation in enumerate(explanations, start=1)
    ]
    units = {explanation.unit for explanation in explanations}
    legend = "Colours are relative to the strongest word of each text."
    if "share" in units:
        legend += ' <span class="for" style="--s:1">important</span>'
    if units - {"share"}:
        legend += ' <span class="for" style="--s:1">for the target</span>'
        legend += ' <span class="against" style="--s:1">against it</span>'
    if rationales is not None:
        legend += " <u>known rationale</u>"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{_escape(title)}</title>",
            f"<style>\n{page_css()}</style>",
            "</head>",
            "<body>",
            f"<h1>{_escape(title)}</h1>",
            f'<p class="legend">{legend}</p>',
            *articles,
            "</body>",
            "</html>",
            "",
        ]
    )


def write_html(
    path: str | os.PathLike[str],
    explanations: Sequence[Explanation],
    title: str = "Explanations",
    unit: Granularity = "words",
    rationales: Sequence[Rationale] | None = None,
) -> None:
    """Write what `render_html` returns to a file, atomically.

    Raises
    ------
    InputError
        As `render_html`.
    DataError
        If the file cannot be written; one that was there before is untouched.
    """
    write_atomically(path, render_html(explanations, title, unit, rationales))


def page_css() -> str:
    """Return the style sheet of explanations."""
    return (resources.files("vat_explain") / "render.css").read_text(encoding="utf-8")


def article_html(number: int, explanation: Explanation, unit: Granularity = "words", rationale: Rationale = ()) -> str:
    """Return one explanation as an ``<article>`` element, for pages that bring `page_css` along.

    Parameters
    ----------
    number : int
        Shown, and part of the id of the element.
    explanation : Explanation
    unit : {"words", "tokens"}, default "words"
    rationale : sequence of (int, int)
        Underlined.

    Raises
    ------
    InputError
        If `unit` is unknown or the rationale lies outside the text.
    """
    for start, end in rationale:
        if not 0 <= start <= end <= len(explanation.text):
            raise InputError(
                f"the rationale of explanation {number} has a stretch from {start} to {end}, outside the "
                f"{len(explanation.text)} characters of its text"
            )
    pieces = _pieces(explanation, unit)
    parts = _tokens_by_word(explanation) if unit == "words" else {}
    blocks = []
    for segment, source in enumerate(_texts(explanation)):
        underlined = rationale if segment == 0 else ()
        content = "".join(_element(source, piece, explanation.unit, parts, underlined) for piece in pieces[segment])
        blocks.append(f'<div class="{"text pair" if segment else "text"}" dir="auto" lang="">{content}</div>')
    strongest = [f"<bdi>{_escape(w.text)}</bdi> {_amount(w.score, explanation.unit)}" for w in _strongest(explanation)]
    name = f"{number}" if explanation.id is None else f"{number} · {explanation.id}"
    return (
        f'<article id="e{number}">\n<header><a href="#e{number}">{_escape(name)}</a> '
        f"<b>{_escape(_prediction(explanation))}</b> "
        f'<span class="about">{_escape(_about(explanation))}</span></header>\n'
        + "\n".join(blocks)
        + '\n<p class="top">strongest: '
        + (", ".join(strongest) or "none")
        + "</p>\n</article>"
    )


def _element(
    source: str,
    piece: _Piece,
    unit: ScoreUnit,
    parts: dict[ScoredSpan, list[ScoredSpan]],
    rationale: Rationale,
) -> str:
    content = _underlined(source, piece.start, piece.end, rationale)
    if not piece.spans:
        return content
    lines = []
    for span in piece.spans:
        lines.append(f"{span.text}: {_amount(span.score, unit)}")
        if len(tokens := parts.get(span, [])) > 1:
            lines += [f"  {token.text}: {_amount(token.score, unit)}" for token in tokens]
    kind = "for" if piece.strength >= 0 else "against"
    tooltip = _escape("\n".join(lines))
    return f'<span class="{kind}" style="--s:{abs(piece.strength):.3f}" title="{tooltip}">{content}</span>'


def _underlined(source: str, start: int, end: int, rationale: Rationale) -> str:
    """Escape a stretch of the text, with what lies in the rationale in <u> elements."""
    edges = sorted({start, end, *(min(max(edge, start), end) for stretch in rationale for edge in stretch)})
    parts = []
    for low, high in itertools.pairwise(edges):
        part = _escape(source[low:high])
        known = any(first <= low and high <= last for first, last in rationale)
        parts.append(f"<u>{part}</u>" if known else part)
    return "".join(parts)


def _tokens_by_word(explanation: Explanation) -> dict[ScoredSpan, list[ScoredSpan]]:
    parts: dict[ScoredSpan, list[ScoredSpan]] = {word: [] for word in explanation.words}
    for token, word in zip(explanation.tokens, explanation.tokens_to_words, strict=True):
        parts[explanation.words[word]].append(token)
    return parts


def _pieces(explanation: Explanation, unit: Granularity) -> list[list[_Piece]]:
    """Cut text and pair into pieces that cover all of it, in order, with strengths in [-1, 1]."""
    groups: list[list[list[ScoredSpan]]] = [[], []]
    for span in sorted(explanation.spans(unit), key=lambda span: (span.segment, span.start, span.end)):
        members = groups[span.segment]
        if members and span.start < max(other.end for other in members[-1]):  # bytes of one character, for example
            members[-1].append(span)
        elif span.start < span.end:
            members.append([span])
    strengths = iter(scale_to_unit([sum(span.score for span in group) for part in groups for group in part]))
    return [
        list(_with_gaps(len(source), groups[segment], strengths)) for segment, source in enumerate(_texts(explanation))
    ]


def _with_gaps(length: int, groups: list[list[ScoredSpan]], strengths: Iterator[float]) -> Iterator[_Piece]:
    reached = 0
    for group in groups:
        start, end = group[0].start, max(span.end for span in group)
        if reached < start:
            yield _Piece(reached, start)
        yield _Piece(start, end, tuple(group), float(next(strengths)))
        reached = end
    if reached < length:
        yield _Piece(reached, length)


def _texts(explanation: Explanation) -> tuple[str, ...]:
    return (explanation.text,) if explanation.text_pair is None else (explanation.text, explanation.text_pair)


def _strongest(explanation: Explanation) -> list[ScoredSpan]:
    return [span for span in explanation.top(TOP_WORDS) if span.score]


def _prediction(explanation: Explanation) -> str:
    if explanation.predicted:
        return ", ".join(f"{label} {explanation.scores[label]:.1%}" for label in explanation.predicted)
    return f"no label (nearest: {explanation.label} {explanation.scores[explanation.label]:.1%})"


def _about(explanation: Explanation) -> str:
    facts = [
        "target: the prediction, class-free" if explanation.target is None else f"target: {explanation.target}",
        f"method: {explanation.method}",
    ]
    if explanation.windows > 1:
        facts.append(f"{explanation.windows} windows")
    if explanation.truncated:
        facts.append("truncated")
    return " · ".join(facts)


def _amount(score: float, unit: ScoreUnit) -> str:
    if unit == "share":
        return f"{score:.1%}"
    return f"{score:+.3f}" if unit == "probability" else f"{score:+.3g}"


def _colour(strength: float) -> Style:
    """Blend from grey to the hue of the sign; the upper half is bold too."""
    hue = _FOR if strength >= 0 else _AGAINST
    mixed = (round(low + (high - low) * abs(strength)) for low, high in zip(_NEUTRAL, hue, strict=True))
    return Style(color=Color.from_rgb(*mixed), bold=abs(strength) >= 0.5)


def _shown(text: str) -> str:
    return text.replace("\r\n", "\n").translate(_PICTURES)


def _escape(text: str) -> str:
    """Escape for HTML; a carriage return as a reference, because parsers turn a bare one into a line feed."""
    return html.escape(text).replace("\r", "&#13;").replace("\0", "\ufffd")
