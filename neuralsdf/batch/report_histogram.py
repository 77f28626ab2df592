"""
report_histogram.py
-------------------
Histograms for the report's page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from .job import Measure

#: Size of the plot, its left margin and its bottom margin in SVG units.
_WIDTH, _HEIGHT, _LEFT, _BELOW = 480, 160, 44, 20
_BINS = 10  # per decade
#: Smaller errors are clamped to this value.
_MIN_ERROR = 1e-6


def histogram(values: Sequence[float], measure: Measure) -> Markup:
    """A histogram of values as SVG, with a logarithmic axis of errors; "" if there are no values.

    If larger values of the measure are better, the error is 1 minus the value. Labels show the value.
    """
    if not values:
        return Markup("")

    def error(value: float) -> float:
        return max(1 - value if measure.better > 0 else value, _MIN_ERROR)

    def label(decade: float) -> str:
        return f"{1 - 10.0**decade:.4g}" if measure.better > 0 else f"{10.0**decade:.2g}"

    logs = [math.log10(error(value)) for value in values]
    low, high = min(-4, math.floor(min(logs))), max(-1, math.ceil(max(logs)))
    counts = Counter(min(int((log - low) * _BINS), (high - low) * _BINS - 1) for log in logs)
    most = max(counts.values())

    def x(log: float) -> float:
        return round(_LEFT + (log - low) / (high - low) * _WIDTH, 1)

    parts = [
        f'<rect x="{x(low + place / _BINS)}" y="{_HEIGHT * (1 - count / most):.1f}" '
        f'width="{_WIDTH / (high - low) / _BINS - 1:.1f}" height="{_HEIGHT * count / most:.1f}">'
        f"<title>{count}: {label(low + place / _BINS)} to {label(low + (place + 1) / _BINS)}</title></rect>"
        for place, count in sorted(counts.items())
    ]
    limits = [x(math.log10(error(limit))) for limit in (measure.good, measure.poor)]
    parts += [f'<line class="limit" x1="{limit}" x2="{limit}" y1="0" y2="{_HEIGHT}"/>' for limit in limits]
    parts += [f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>']
    parts += [
        f'<text x="{x(decade)}" y="{_HEIGHT + 16}">{label(decade)}</text>' for decade in range(low, high + 1)
    ]
    parts += [f'<text class="count" x="{_LEFT - 6}" y="10">{most}</text>']
    size = f"0 -4 {_LEFT + _WIDTH + 24} {_HEIGHT + _BELOW + 8}"
    return Markup(f'<svg viewBox="{size}" role="img">{"".join(parts)}</svg>')
