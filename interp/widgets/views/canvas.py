"""Pictures of views without a browser: text, colour bars and cells, drawn with Pillow."""

from __future__ import annotations

import io
import textwrap
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from interp.widgets.colours import sequential
from interp.widgets.diverging import diverging
from interp.widgets.views.protocol import readable

SCALE: Final = 2
"""Pixels of a picture per pixel of the page: sharp on common screens, and the size that notebooks are told is half of it."""
PAPER: Final = (252, 251, 248)
INK: Final = (27, 34, 48)
SOFT: Final = (89, 98, 115)
HATCH: Final = (201, 197, 186)
LOCK: Final = (214, 51, 108)

Colour = tuple[int, int, int]
Number = float | int


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of so many page pixels: DejaVu Sans where the machine has it (it knows most scripts), else Pillow's own."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size * SCALE)
    except OSError:
        return ImageFont.load_default(size * SCALE)


class Canvas:
    """A picture that is drawn in page pixels.

    Attributes:
        image: the picture, `SCALE` times as wide and high.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self, x: Number, y: Number, words: str, *, size: int = 11, colour: Colour = INK, anchor: str = "la"
    ) -> None:
        """Write one line; `anchor` as in Pillow: l, m or r, then a (top), m (middle) or s (base line)."""
        self._draw.text((x * SCALE, y * SCALE), words, fill=colour, font=font(size), anchor=anchor)

    def paragraph(self, x: Number, y: Number, words: str, *, columns: int, size: int = 10) -> None:
        """Write soft small print in lines of at most so many characters."""
        for n, line in enumerate(textwrap.wrap(words, columns)):
            self.text(x, y + n * (size + 4), line, size=size, colour=SOFT)

    def box(self, x: Number, y: Number, width: Number, height: Number, colour: Colour) -> None:
        """Fill a rectangle."""
        self._draw.rectangle((x * SCALE, y * SCALE, (x + width) * SCALE - 1, (y + height) * SCALE - 1), fill=colour)

    def outline(self, x: Number, y: Number, width: Number, height: Number, colour: Colour, thick: int = 2) -> None:
        """Draw a rectangle's border, inside it."""
        corners = (x * SCALE, y * SCALE, (x + width) * SCALE - 1, (y + height) * SCALE - 1)
        self._draw.rectangle(corners, outline=colour, width=thick * SCALE)

    def line(self, x0: Number, y0: Number, x1: Number, y1: Number, colour: Colour = SOFT) -> None:
        """Draw a line of one page pixel."""
        self._draw.line((x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE), fill=colour, width=SCALE)

    def hatch(self, x: int, y: int, width: int, height: int) -> None:
        """Fill a rectangle with the sign for "no value": diagonal lines on the paper."""
        rows, cols = np.mgrid[0 : height * SCALE, 0 : width * SCALE]
        on = (rows + cols) % (5 * SCALE) < SCALE
        self.pixels(x, y, np.where(on[..., None], np.array(HATCH), np.array(PAPER)).astype(np.uint8))

    def pixels(self, x: Number, y: Number, rgb: NDArray[np.uint8]) -> None:
        """Put a picture [height, width, 3] at its own resolution (not scaled)."""
        self.image.paste(Image.fromarray(rgb), (round(x * SCALE), round(y * SCALE)))

    def bar(self, x: Number, y: Number, width: int, ticks: tuple[str, str, str]) -> None:
        """A colour bar with the words at its ends and its middle."""
        self._ramp(x, y, width, sequential(), ticks)

    def signed_bar(self, x: Number, y: Number, width: int, limit: float) -> None:
        """The colour bar of a difference, with the words at its ends and at zero."""
        self._ramp(x, y, width, diverging(), (figure(-limit), "0", figure(limit)))

    def _ramp(self, x: Number, y: Number, width: int, table: NDArray[np.uint8], ticks: tuple[str, str, str]) -> None:
        ramp = table[np.linspace(0, len(table) - 1, width * SCALE).round().astype(int)]
        self.pixels(x, y, np.repeat(ramp[None], 8 * SCALE, axis=0))
        for at, words, anchor in zip((0, width / 2, width), ticks, ("la", "ma", "ra"), strict=True):
            self.text(x + at, y + 11, words, size=10, colour=SOFT, anchor=anchor)


def visible(text: str) -> str:
    """A token as one line of characters that a picture can draw."""
    return "".join(c if c.isprintable() else "␣" if c.isspace() else "·" for c in readable(text)) or "∅"


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG")  # optimising takes five times as long for 6 % fewer bytes
    return file.getvalue()


def figure(x: Number | None, digits: int = 3) -> str:
    """A number as the pages write it: so many significant digits; a dash where it is undefined."""
    if x is None or not np.isfinite(x):
        return "–"
    if x == 0:
        return "0"
    if abs(x) < 1e-3:
        mantissa, exponent = f"{x:.{digits - 2}e}".split("e")
        return f"{mantissa}e{int(exponent):+d}".replace("-", "−")
    return (f"{x:,.0f}" if abs(x) >= 999.5 else f"{float(f'{x:.{digits}g}'):g}").replace("-", "−")
