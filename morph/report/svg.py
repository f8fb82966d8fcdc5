"""Matplotlib's figures as part of a page: they take its font and follow its colours."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from morph.report.colours import AXES, INK, RULES

__all__ = ["drawing", "inline", "log_axis", "more_ticks"]

_STYLE = {
    "axes.edgecolor": RULES, "axes.facecolor": "none", "axes.grid": True, "axes.labelcolor": AXES,
    "axes.labelsize": 8.5, "axes.linewidth": 0.8, "axes.spines.right": False, "axes.spines.top": False,
    "axes.titlecolor": INK, "axes.titlelocation": "left", "axes.titlesize": 8.5, "axes.unicode_minus": True,
    "figure.facecolor": "none", "font.size": 8.5, "grid.color": RULES, "grid.linewidth": 0.6, "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round", "savefig.facecolor": "none", "svg.fonttype": "none", "text.color": INK,
    # A name may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": RULES, "xtick.labelcolor": AXES, "xtick.labelsize": 8, "xtick.major.size": 2.5,
    "ytick.color": RULES, "ytick.labelcolor": AXES, "ytick.labelsize": 8, "ytick.major.size": 0,
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@contextmanager
def drawing() -> Iterator[None]:
    """Figures drawn and put `inline` in here look as the page does."""
    with matplotlib.rc_context(_STYLE):
        yield


def inline(figure: Figure, key: str, label: str, colours: Mapping[str, str]) -> Markup:
    """A figure as an element of HTML, which is as wide as there is room for.

    Args:
        figure: Drawn within `drawing`.
        key: Of the page's figures, this one's: no two elements have one id.
        label: What it shows, for who does not see it.
        colours: What takes the place of each colour.
    """
    content = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(content, format="svg", metadata=nothing)
    drawn = content.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style type=\"text/css\">.*?</style>", "", drawn, flags=re.S)
    (box,) = re.findall(r'viewBox="([^"]+)"', drawn[: drawn.index(">")])
    head = f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">'
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{key}-", drawn[drawn.index(">") + 1 :])
    body = body.replace("xlink:href", "href")
    # The size stays, the page gives the family.
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    for stand_in, colour in colours.items():
        body = body.replace(stand_in, colour)
    return Markup(head + re.sub(r"\n\s*", "\n", body).strip())


def log_axis(axis: "matplotlib.axis.Axis", ticks: int = 6) -> None:
    """Powers of ten as plain text."""
    axis.set_major_locator(LogLocator(numticks=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(_power))


def more_ticks(axis: "matplotlib.axis.Axis") -> None:
    """Where few powers of ten are in sight, also twice and five times these."""
    low, high = sorted(axis.get_view_interval())
    if low > 0 and high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))


def _power(value: float, _: object = None) -> str:
    if 1e-2 <= value <= 1e3:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}·{power}"
