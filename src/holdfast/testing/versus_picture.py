"""The picture of `holdfast bench`: bars of ratios, as SVG, by workload and peer, on a log scale.

It is a list of rectangles, so it needs no library; equal runs give equal bytes.
"""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from holdfast.testing.versus_report import Report, shown

WIDTH = 860
LABELS = 130
LEFT = LABELS + 300
"""Where the line of equal rates stands."""
HALF = 290
BAR = 8
GAP = 8
TOP = 56
COLOURS = {
    "encrypted": "#b34a6b",
    "rocksdict": "#3b6ea5",
    "lmdb": "#c1682f",
    "plyvel": "#5f8f4e",
    "sqlite3": "#8a6fae",
}
OTHER = "#777777"
SPAN_MIN = 10.0


def picture(report: Report) -> str:
    """Return the picture of a run."""
    ratios = {
        workload: [
            (engine, ratio)
            for engine in report.peers
            if (ratio := report.run.ratio(workload, engine))
        ]
        for workload in report.workloads
    }
    found = [ratio for pairs in ratios.values() for _, ratio in pairs]
    span = max([SPAN_MIN, *(max(ratio, 1 / ratio) for ratio in found)])
    body: list[str] = []
    at = TOP
    for workload, pairs in ratios.items():
        height = BAR * len(pairs)
        body.append(text(LABELS - 8, at + height / 2 + 4, workload, "end"))
        for engine, ratio in pairs:
            body += bar(engine, ratio, at, span)
            at += BAR
        at += GAP
    return "\n".join([*head(report, at), *grid(span, at), *body, "</svg>", ""])


def place(ratio: float, span: float) -> float:
    """Return where a ratio stands."""
    return LEFT + HALF * math.log(ratio) / math.log(span)


def bar(engine: str, ratio: float, top: float, span: float) -> list[str]:
    """Return one bar with its ratio beside it."""
    first, last = sorted((place(1.0, span), place(ratio, span)))
    colour = COLOURS.get(engine, OTHER)
    side = "start" if ratio >= 1 else "end"
    beside = last + 3 if ratio >= 1 else first - 3
    return [
        (
            f'<rect x="{first:.1f}" y="{top + 1:.1f}" width="{max(last - first, 0.5):.1f}" '
            f'height="{BAR - 2}" fill="{colour}"/>'
        ),
        text(beside, top + BAR - 1.5, shown(ratio), side, size=7),
    ]


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 11) -> str:
    """Return words at a place."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def head(report: Report, height: float) -> list[str]:
    """Return the frame, the title and what the colours mean."""
    title = "Holdfast's rate as a multiple of each peer's: right of 1 it is ahead"
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" role="img">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        text(8, 16, title, size=12),
    ]
    for at, engine in enumerate(report.peers):
        x = 8 + 110 * at
        lines.append(
            f'<rect x="{x}" y="24" width="10" height="10" fill="{COLOURS.get(engine, OTHER)}"/>'
        )
        lines.append(text(x + 14, 33, engine))
    return lines


def grid(span: float, height: float) -> list[str]:
    """Return lines at 1, 10, 100 and their inverses."""
    lines = []
    for exponent in range(-math.floor(math.log10(span)), math.floor(math.log10(span)) + 1):
        x = place(10.0**exponent, span)
        colour = "#000000" if exponent == 0 else "#cccccc"
        lines.append(
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height:.0f}" stroke="{colour}"/>'
        )
        lines.append(text(x, TOP - 9, f"{10.0**exponent:g}", "middle", size=9))
    return lines
