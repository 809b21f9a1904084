"""Plots as SVG: bars and dots, with whiskers from quartile to quartile."""

from xml.sax.saxutils import escape

COLOURS = ["#1b6ca8", "#c96a1b", "#7a7a7a", "#4b8f4b"]
WIDTH = 860
LINE = 26


def _svg(height, title, parts):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="16" y="26" font-size="16">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def _text(x, y, text, anchor="start", colour="#222"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _line(x1, y1, x2, y2, colour="#222", width=1.5):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def ratios(title, items):
    """One dot for each (what, spread, target)."""
    left, right, top = 500, WIDTH - 60, 56
    most = max([1.0, *(max(spread["high"], target) for _, spread, target in items)]) * 1.05

    def at(value):
        return left + (right - left) * value / most

    bottom = top + LINE * len(items)
    parts = [_line(at(1), top - 12, at(1), bottom, "#bbb"), _text(at(1), bottom + 16, "1.0", "middle", "#777")]
    for n, (what, spread, target) in enumerate(items):
        y = top + LINE * n
        good = spread["median"] <= target
        colour = COLOURS[0] if good else COLOURS[1]
        parts += [
            _text(left - 12, y + 4, what, "end"),
            _line(at(target), y - 9, at(target), y + 9, "#222", 2),
            _line(at(spread["low"]), y, at(spread["high"]), y, colour, 3),
            f'<circle cx="{at(spread["median"]):.1f}" cy="{y}" r="5" fill="{colour}"/>',
            _text(WIDTH - 12, y + 4, f"{spread['median']:.2f}", "end"),
        ]
    return _svg(bottom + 28, title, parts)


def bars(title, groups):
    """One group of bars for each name, one bar for each server."""
    left, right, y = 220, WIDTH - 80, 52
    most = max((spread["high"] for group in groups.values() for spread in group.values()), default=1) * 1.02
    colours, parts = {}, []

    def at(value):
        return left + (right - left) * value / most

    for name, group in groups.items():
        parts.append(_text(16, y + 14, name))
        for who, spread in group.items():
            colour = colours.setdefault(who, COLOURS[len(colours) % len(COLOURS)])
            width = at(spread["median"]) - left
            parts += [
                _text(left - 10, y + 14, who, "end", "#555"),
                f'<rect x="{left}" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>',
                _line(at(spread["low"]), y + 9, at(spread["high"]), y + 9),
                _text(at(spread["high"]) + 8, y + 14, f"{spread['median']:,.1f}"),
            ]
            y += LINE - 4
        y += 12
    return _svg(y + 8, title, parts)
