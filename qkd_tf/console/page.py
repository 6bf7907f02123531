"""Pages that open offline: one file, figures as SVG whose colours follow light and dark, no script."""

import io
import pathlib
import re
from collections.abc import Mapping

import jinja2
import markupsafe
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# What figures are drawn in -> the variable of page.html.j2 that it stands for. Matplotlib wants numbers, and the
# reader's choice of light or dark is known to the browser alone.
COLOURS: Mapping[str, str] = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "shade": "#040404",
    "one": "#050505",
    "two": "#060606",
    "three": "#070707",
    "four": "#080808",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.4,
}
SIZE = (4.5, 2.7)  # inches; at a phone's width the letters keep their 9 points
# Decorates a function that draws, from `axes` to `svg`: matplotlib's own style, then ours, for the call alone.
in_style = matplotlib.style.context(STYLE, after_reset=True)


def render(template: pathlib.Path, **values) -> str:
    """A page's text from a template that extends page.html.j2; values are escaped, undefined names are an error."""
    folders = [template.parent, pathlib.Path(__file__).parent]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["breakable"] = _breakable
    return environment.get_template(template.name).render(**values)


def _breakable(name: str) -> markupsafe.Markup:
    """A name that a line may break after its underscores and slashes."""
    places = markupsafe.Markup("<wbr>")
    return markupsafe.Markup("").join(
        part if part not in "_/" else part + places for part in re.split("([_/])", name) if part
    )


def axes(size: tuple[float, float] = SIZE) -> Axes:
    """Empty axes of a figure of their own, which pyplot does not know; see `in_style`."""
    return Figure(figsize=size, layout="constrained").subplots()


def svg(drawn: Axes, text: str) -> markupsafe.Markup:
    """The figure of `drawn` as an SVG element.

    Args:
      text: what a screen reader reads instead.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": text}):
        drawn.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    code = buffer.getvalue()
    code = code[code.index("<svg") :]
    code = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", code, flags=re.S)
    code = re.sub(r'<g id="[^"]*"', "<g", code)
    code = re.sub(r"font-family: [^;\"]*(; )?", "", code)
    code = re.sub(r"\n\s*", "\n", code)
    for name, colour in COLOURS.items():
        code = code.replace(colour, f"var(--{name})")
    (width, height) = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', code).groups()
    label = markupsafe.escape(text)
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return markupsafe.Markup(head + code[code.index(">") + 1 :].strip())  # noqa: S704  (matplotlib escapes its texts)
