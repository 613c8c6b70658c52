"""The colours of pages and charts: a variant has one on every figure of a page.

Tol's *muted* scheme, which people who see fewer colours tell apart too, lightened for dark pages;
the reference is drawn in the colour of the text. Charts are drawn in the light colours, and a page
that is dark replaces them (:func:`harness.report.drawing.as_svg`).
"""

INK = ("#1d1c1a", "#e9e6e0")  # (light, dark): text, axes, and the reference
MUTED = ("#66625b", "#a39f97")
LINE = ("#e3dfd7", "#31353c")
PAPER = ("#fdfcfa", "#14161a")
VARIANTS = (
    INK, ("#332288", "#a79df0"), ("#cc6677", "#e38a98"), ("#117733", "#5cc07c"),
    ("#b58a1b", "#ddcc77"), ("#2f8fb5", "#88ccee"), ("#882255", "#d67aa9"),
    ("#2e9485", "#5fc4b4"), ("#8a8a20", "#bcbc52"), ("#aa4499", "#d383c5"),
)  # fmt: skip
MARKERS = "oDs^vPX<>*"
SIGNS = "●◆■▲▼✚✖◀▶★"  # the same shapes as text


def colour(place: int) -> str:
    """Give the colour of a study's variant by its place, as charts are drawn with it.

    >>> colour(0), colour(1) == colour(10)
    ('#1d1c1a', True)
    """
    return VARIANTS[_cycled(place)][0]


def variable(place: int) -> str:
    """Name the same colour as a page names it.

    >>> variable(0), variable(3), variable(10)
    ('var(--v0)', 'var(--v3)', 'var(--v1)')
    """
    return f"var(--v{_cycled(place)})"


def marker(place: int) -> str:
    """Give the shape that tells a variant apart beside its colour."""
    return MARKERS[place % len(MARKERS)]


def sign(place: int) -> str:
    """Give the same shape as a page's keys show it.

    >>> marker(2), sign(2)
    ('s', '■')
    """
    return SIGNS[place % len(SIGNS)]


def _cycled(place: int) -> int:
    """The reference's colour stays its own, however many variants there are."""
    return (place - 1) % (len(VARIANTS) - 1) + 1 if place else 0


def as_css() -> str:
    """Write the colours as a page's variables, light and dark."""
    colours = "; ".join(f"--v{i}: light-dark({a}, {b})" for i, (a, b) in enumerate(VARIANTS))
    return f":root {{ {colours} }}"


def replacements() -> dict[str, str]:
    """Map what a chart was drawn with to the page's variables.

    >>> replacements()["#66625b"]
    'var(--muted)'
    """
    pairs = ((INK, "ink"), (MUTED, "muted"), (LINE, "line"), (PAPER, "paper"))
    named = {shades[0]: f"var(--{name})" for shades, name in pairs}
    places = range(1, len(VARIANTS))
    return {VARIANTS[i][0]: f"var(--v{i})" for i in places} | named
