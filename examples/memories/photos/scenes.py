"""Small painted landscapes, so that an empty gallery has something to show.

Each scene is painted at twice its size and reduced, which is Pillow's way to smooth edges.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

LANDSCAPE, PORTRAIT, SQUARE, WIDE = (1440, 960), (960, 1280), (1200, 1200), (1680, 840)


class Canvas:
    def __init__(self, size, seed):
        self.width, self.height = size[0] * 2, size[1] * 2
        self.random = random.Random(seed)
        self.image = Image.new("RGB", (self.width, self.height))

    def at(self, x, y):
        """A point from fractions of the width and the height."""
        return x * self.width, y * self.height

    def sky(self, *colours, until=1.0):
        """A vertical gradient through the colours, over the upper part of the canvas."""
        rows = 256
        strip = Image.new("RGB", (1, rows))
        for row in range(rows):
            strip.putpixel((0, row), between(colours, row / (rows - 1)))
        self.image.paste(strip.resize((self.width, round(self.height * until)), Image.Resampling.BICUBIC))

    def shine(self, x, y, radius, colour, halo=3.0):
        """A disc with a soft halo, added to what is there, as light is."""
        small = (self.width // 8, self.height // 8)
        glow = Image.new("RGB", small)
        cx, cy, r = x * small[0], y * small[1], radius * small[1] * halo
        ImageDraw.Draw(glow).ellipse((cx - r, cy - r, cx + r, cy + r), fill=mix("#000000", colour, 0.55))
        glow = glow.filter(ImageFilter.GaussianBlur(r * 0.55)).resize(self.image.size, Image.Resampling.BICUBIC)
        self.image = ImageChops.screen(self.image, glow)
        self.disc(x, y, radius, colour)

    def disc(self, x, y, radius, colour):
        cx, cy = self.at(x, y)
        r = radius * self.height
        ImageDraw.Draw(self.image).ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)

    def shape(self, points, colour):
        ImageDraw.Draw(self.image).polygon([self.at(*point) for point in points], fill=colour)

    def ridge(self, base, rise, colour, rough=1.0):
        """A line of hills across the canvas, filled to the bottom; answers with its height at x."""
        waves = [
            (
                self.random.uniform(0.6, 1.4) * 2**n * 2.4,
                self.random.uniform(0, math.tau),
                0.52**n * rough ** min(n, 1),
            )
            for n in range(6)
        ]

        def height(x):
            return base - rise * sum(a * math.sin(f * x * 2 + phase) for f, phase, a in waves) / 2

        steps = 400
        line = [(n / steps, height(n / steps)) for n in range(steps + 1)]
        self.shape([(0, 1), *line, (1, 1)], colour)
        return height

    def pines(self, height, count, tall, colour, snow=None):
        aspect = self.height / self.width
        for x in sorted(self.random.uniform(-0.02, 1.02) for _ in range(count)):
            size = tall * self.random.uniform(0.55, 1.1)
            foot = height(x) + size * 0.12
            for tier in range(4):
                top = foot - size + tier * size * 0.2
                half, low = size * aspect * (0.09 + 0.055 * tier), top + size * 0.36
                self.shape([(x, top), (x - half, low), (x + half, low)], colour)
                if snow:
                    self.shape(
                        [(x, top), (x - half * 0.75, low - size * 0.08), (x + half * 0.1, top + size * 0.2)],
                        snow,
                    )

    def stars(self, count, until):
        draw = ImageDraw.Draw(self.image)
        for _ in range(count):
            x, y = self.at(self.random.random(), self.random.random() ** 1.4 * until)
            r = self.random.choice((1, 1, 2, 2, 3))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=mix("#33405c", "#ffffff", self.random.random()))

    def sea(self, horizon, far, near, light, x, spread):
        """Water from the horizon down, with the light's path on it."""
        rows = 120
        for row in range(rows):
            y = horizon + (1 - horizon) * row / rows
            self.shape([(0, y), (1, y), (1, 1), (0, 1)], mix(far, near, row / rows))
        for _ in range(620):
            depth = self.random.random() ** 1.6
            y = horizon + (1 - horizon) * depth
            offset = self.random.gauss(0, spread * (0.25 + depth))
            length = self.random.uniform(0.01, 0.05) * (0.3 + depth)
            strength = math.exp(-((offset / (spread * 1.6)) ** 2)) * self.random.uniform(0.25, 0.95)
            thick = 0.0008 + 0.0028 * depth
            middle = x + offset
            self.shape(
                [(middle - length, y), (middle, y - thick), (middle + length, y), (middle, y + thick)],
                mix(mix(far, near, depth), light, strength),
            )

    def balloon(self, x, y, size, colours):
        aspect = self.height / self.width
        for n, colour in enumerate(colours):
            half = size * aspect * (1 - n / len(colours))
            points = []
            for step in range(41):
                turn = math.pi * step / 40
                belly = math.sin(turn) ** 0.8 * (1 if turn < math.pi / 2 else 1 - 0.32 * (turn / math.pi - 0.5) * 2)
                points.append((half * belly, -size * math.cos(turn) * (1 if turn < math.pi / 2 else 1.25)))
            outline = [(x + dx, y + dy) for dx, dy in points] + [(x - dx, y + dy) for dx, dy in reversed(points)]
            self.shape(outline, colour)
        w, top = size * aspect * 0.16, y + size * 1.42
        self.shape(
            [(x - w, top), (x + w, top), (x + w * 0.8, top + size * 0.24), (x - w * 0.8, top + size * 0.24)],
            "#4a3328",
        )

    def sail(self, x, y, size, hull, cloth):
        a = self.height / self.width * size
        self.shape(
            [(x - a * 0.05, y - size), (x - a * 0.05, y - size * 0.12), (x - a * 0.62, y - size * 0.12)],
            cloth,
        )
        self.shape(
            [(x + a * 0.03, y - size * 0.9), (x + a * 0.03, y - size * 0.12), (x + a * 0.4, y - size * 0.12)],
            cloth,
        )
        self.shape(
            [
                (x - a * 0.6, y - size * 0.07),
                (x + a * 0.55, y - size * 0.07),
                (x + a * 0.35, y + size * 0.06),
                (x - a * 0.4, y + size * 0.06),
            ],
            hull,
        )

    def aurora(self, base, colours):
        small = (self.width // 8, self.height // 8)
        for n, colour in enumerate(colours):
            veil = Image.new("RGB", small)
            draw = ImageDraw.Draw(veil)
            phase, slow = self.random.uniform(0, math.tau), self.random.uniform(3, 5)
            for x in range(small[0]):
                t = x / small[0]
                low = (base - 0.09 * n + 0.07 * math.sin(slow * t + phase) + 0.02 * math.sin(4 * slow * t)) * small[1]
                tall = (0.26 + 0.1 * math.sin(7 * t + phase)) * small[1]
                strength = 0.35 + 0.3 * math.sin(23 * t + phase) * math.sin(9 * t)
                for part in range(10):
                    top = low - tall * (part + 1) / 10
                    draw.line(
                        (x, top, x, low - tall * part / 10),
                        mix("#000000", colour, max(0, strength) * (1 - part / 10)),
                    )
            veil = veil.filter(ImageFilter.GaussianBlur(5)).resize(self.image.size, Image.Resampling.BICUBIC)
            self.image = ImageChops.screen(self.image, veil)

    def finished(self):
        image = self.image.reduce(2)
        grain = Image.effect_noise(image.size, 14).convert("RGB")
        return Image.blend(image, ImageChops.overlay(image, grain), 0.35)


def rgb(colour):
    return ImageColor.getrgb(colour) if isinstance(colour, str) else colour


def mix(one, other, amount):
    return tuple(round(a + (b - a) * amount) for a, b in zip(rgb(one), rgb(other), strict=True))


def between(colours, place):
    """The colour at a place (0 to 1) of a gradient."""
    spot = place * (len(colours) - 1)
    n = min(int(spot), len(colours) - 2)
    return mix(colours[n], colours[n + 1], spot - n)


def hills(canvas, start, end, count, far, near, rise=0.05):
    """Ridges behind one another, paler with distance; answers with the nearest one's height."""
    height = None
    for n in range(count):
        t = n / max(1, count - 1)
        height = canvas.ridge(start + (end - start) * t**1.2, rise * (0.7 + t), mix(far, near, t))
    return height


def evening_sea(c):
    c.sky("#233a66", "#8c5c8c", "#f08a6b", "#ffd08a", until=0.62)
    c.shine(0.62, 0.54, 0.055, "#fff1c4", halo=4)
    c.sea(0.6, "#e0876c", "#1d3358", "#ffe3a6", 0.62, 0.07)
    c.sail(0.27, 0.635, 0.13, "#2b2238", "#f6dcc0")
    c.sail(0.83, 0.612, 0.045, "#5b4058", "#f3c9a8")


def lighthouse(c):
    c.sky("#1c2750", "#53508a", "#d98399", "#ffc9a0", until=0.75)
    c.stars(90, 0.3)
    c.sea(0.66, "#c58595", "#22305c", "#ffd3b0", 0.2, 0.09)
    c.ridge(0.72, 0.02, "#6c5577")
    c.shape([(0.4, 1), (0.5, 0.78), (0.62, 0.715), (0.78, 0.7), (1, 0.76), (1, 1)], "#251f3b")
    c.shape([(0.655, 0.71), (0.675, 0.4), (0.725, 0.4), (0.745, 0.71)], "#f2e3dc")
    for top in (0.46, 0.58):
        c.shape(
            [
                (0.6705 - (top - 0.46) * 0.065, top),
                (0.7295 + (top - 0.46) * 0.065, top),
                (0.7330 + (top - 0.46) * 0.065, top + 0.055),
                (0.6670 - (top - 0.46) * 0.065, top + 0.055),
            ],
            "#c4473f",
        )
    c.shape([(0.665, 0.4), (0.735, 0.4), (0.735, 0.39), (0.665, 0.39)], "#251f3b")
    c.shape([(0.68, 0.39), (0.72, 0.39), (0.72, 0.35), (0.68, 0.35)], "#ffe9a8")
    c.shape([(0.672, 0.35), (0.728, 0.35), (0.7, 0.315)], "#251f3b")
    c.shine(0.7, 0.37, 0.012, "#fff4c9", halo=7)


def dunes(c):
    c.sky("#5aa7c7", "#a8d5d8", "#f7ead0", until=0.6)
    c.shine(0.24, 0.2, 0.05, "#fffbe8", halo=4)
    hills(c, 0.52, 0.9, 6, "#efcf9b", "#a85f3a", rise=0.07)


def ridges(c):
    c.sky("#f7b267", "#f9cf8f", "#fbe9cf", until=0.6)
    c.shine(0.4, 0.3, 0.05, "#fffaf0", halo=4)
    height = hills(c, 0.42, 0.93, 7, "#f0c9a6", "#2f3a4f", rise=0.08)
    c.pines(height, 46, 0.09, "#232c3d")


def larches(c):
    c.sky("#7fb2cf", "#cfe3e2", until=0.5)
    c.ridge(0.38, 0.15, "#8ea3b8", rough=1.5)
    c.ridge(0.5, 0.09, "#6f8794")
    for base, colour, tall in ((0.62, "#c98a2e", 0.13), (0.74, "#d9a038", 0.19), (0.9, "#b7591f", 0.28)):
        height = c.ridge(base, 0.04, mix(colour, "#3b2a1a", 0.45))
        c.pines(height, 40, tall, colour, snow=mix(colour, "#ffe3a0", 0.35))


def balloons(c):
    c.sky("#6fb1d6", "#bfe0e3", "#fde6c8", until=0.8)
    hills(c, 0.72, 0.95, 5, "#b9cdb8", "#3c5b45", rise=0.05)
    c.balloon(0.3, 0.32, 0.15, ("#d1495b", "#f2e2c4", "#d1495b", "#f2e2c4"))
    c.balloon(0.64, 0.22, 0.09, ("#2e6f95", "#f6c85f", "#2e6f95", "#f6c85f"))
    c.balloon(0.8, 0.48, 0.055, ("#e8871e", "#fbe3b5", "#e8871e"))
    c.balloon(0.5, 0.55, 0.035, ("#6b4e8e", "#e7c6dd", "#6b4e8e"))


def moonrise(c):
    c.sky("#0b1530", "#21386b", "#7d83b0", until=0.62)
    c.stars(260, 0.5)
    c.shine(0.5, 0.3, 0.06, "#fdf6dd", halo=4)
    c.ridge(0.52, 0.16, "#34477a", rough=1.6)
    c.ridge(0.59, 0.07, "#22325e", rough=1.3)
    c.sea(0.64, "#3b4f85", "#0a1228", "#fbf1d0", 0.5, 0.06)


def northern_lights(c):
    c.sky("#050b1f", "#0b2140", "#164056", until=0.9)
    c.stars(420, 0.75)
    c.aurora(0.6, ("#3dffa8", "#2ad6c4", "#8f6bff"))
    c.ridge(0.72, 0.07, "#13283f", rough=1.5)
    height = c.ridge(0.86, 0.03, "#dfe9f2")
    c.pines(height, 34, 0.2, "#0c1a2b")


def snowy_pines(c):
    c.sky("#9db7d3", "#d7e0ea", "#f9e8e2", until=0.7)
    c.shine(0.75, 0.24, 0.045, "#fff7ec", halo=5)
    for base, tall, tree in ((0.55, 0.1, "#93a9bd"), (0.68, 0.17, "#5d7a8f"), (0.86, 0.3, "#2c4a59")):
        height = c.ridge(base, 0.035, mix("#d5dfea", "#ffffff", base))
        c.pines(height, 26, tall, tree, snow="#f4f7fa")


def bonfire_hill(c):
    c.sky("#1d1b3a", "#5b2a55", "#c2504e", "#f6a15b", until=0.75)
    c.stars(120, 0.35)
    c.shine(0.2, 0.66, 0.07, "#ffdf9e", halo=4)
    height = hills(c, 0.66, 0.92, 4, "#8d3f54", "#1a1327", rise=0.05)
    c.pines(height, 18, 0.14, "#120d1d")


@dataclass(frozen=True)
class Scene:
    album: str
    title: str
    size: tuple[int, int]
    draw: Callable[[Canvas], None]

    def paint(self):
        canvas = Canvas(self.size, self.title)
        self.draw(canvas)
        return canvas.finished()


# The last one is the newest, and so the large picture of the front page.
SCENES = (
    Scene("Winter nights", "Snow on the pines", SQUARE, snowy_pines),
    Scene("Winter nights", "Moonrise over the fjord", PORTRAIT, moonrise),
    Scene("Winter nights", "The sky was green", LANDSCAPE, northern_lights),
    Scene("Autumn in the hills", "Larches turning", LANDSCAPE, larches),
    Scene("Autumn in the hills", "Balloons over the valley", PORTRAIT, balloons),
    Scene("Autumn in the hills", "Seven ridges before breakfast", WIDE, ridges),
    Scene("Summer on the coast", "Dunes at noon", LANDSCAPE, dunes),
    Scene("Summer on the coast", "Last light at the lighthouse", PORTRAIT, lighthouse),
    Scene("Summer on the coast", "After the bonfire", SQUARE, bonfire_hill),
    Scene("Summer on the coast", "First evening by the sea", WIDE, evening_sea),
)
