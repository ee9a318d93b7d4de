"""Take the README's pictures: headless Chromium looks at sites and writes docs/images/NAME.png.

    python docs/screenshots.py memories=http://memories.example/=198.18.0.2 [NAME=URL=HOST ...]

HOST is the address that answers for the URL's name, so that no DNS record is needed. Exits 1, having
said why, when a page cannot be taken or the picture shows next to nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH, HEIGHT = 1200, 800
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60
# A page of one line takes about 9 kB at this size, the plainest of the demo's pages over 100 kB.
LEAST_BYTES = 30_000


class ScreenshotError(Exception):
    """A picture that could not be taken; the text says of what, why, and what to do."""


@dataclass(frozen=True)
class Page:
    """A page to take: the picture's name, the page's address, and the host that answers for it."""

    name: str
    url: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Page:
        """Read NAME=URL=HOST; the URL may hold `=` itself. Raises argparse.ArgumentTypeError."""
        name, _, rest = text.partition("=")
        url, _, host = rest.rpartition("=")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise argparse.ArgumentTypeError(f"{text!r}: the name must be lowercase letters, digits and dashes")
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise argparse.ArgumentTypeError(f"{text!r}: {url!r} is no http address; give NAME=URL=HOST")
        if not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", host):
            raise argparse.ArgumentTypeError(f"{text!r}: {host!r} is no host; give NAME=URL=HOST")
        return cls(name, url, host)


def browser() -> str:
    """The path of the first Chromium found. Raises ScreenshotError when there is none."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    raise ScreenshotError("no Chromium on this machine; on Debian: apt-get install chromium")


def take(page: Page, folder: Path) -> Path:
    """Write the page's picture into the folder. Raises ScreenshotError."""
    target = folder / f"{page.name}.png"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "page.png"
        command = [
            browser(),
            "--headless",
            "--no-sandbox",  # Chromium refuses to run as root with it
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={scratch}/profile",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--host-resolver-rules=MAP {urlsplit(page.url).hostname} {page.host}",
            f"--screenshot={fresh}",
            page.url,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as exc:
            raise ScreenshotError(f"{page.name}: {page.url} on {page.host} took over {SECONDS} s") from exc
        if not fresh.is_file():
            raise ScreenshotError(f"{page.name}: no picture of {page.url} on {page.host}: {complaint(done.stderr)}")
        verify(page, fresh.read_bytes())
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh, target)
    return target


def complaint(log: str) -> str:
    """What Chromium says of the page among all it says of the desktop that is not there."""
    errors = re.findall(r"net::ERR_\w+", log)
    return errors[-1] if errors else log.strip()[-500:] or "Chromium said nothing"


def verify(page: Page, png: bytes) -> None:
    """Raise ScreenshotError unless the bytes are a PNG of the size asked for that shows something."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ScreenshotError(f"{page.name}: what Chromium wrote is no PNG")
    size = struct.unpack(">II", png[16:24])
    if size != (WIDTH, HEIGHT):
        raise ScreenshotError(f"{page.name}: the picture is {size[0]}x{size[1]}, not {WIDTH}x{HEIGHT}")
    if len(png) < LEAST_BYTES:
        raise ScreenshotError(
            f"{page.name}: the picture has {len(png)} bytes, too few to show more than an error page;"
            f" look at {page.url} on {page.host}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Take every picture that was asked for; answers the exit code."""
    parser = argparse.ArgumentParser(description="Take pictures of sites with headless Chromium.")
    parser.add_argument("pages", nargs="+", type=Page.parse, metavar="NAME=URL=HOST")
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where the pictures go (docs/images)")
    chosen = parser.parse_args(arguments)
    failed = False
    for page in chosen.pages:
        try:
            target = take(page, chosen.folder)
        except ScreenshotError as exc:
            print(exc, file=sys.stderr)
            failed = True
        else:
            print(f"{target}: {page.url}, {target.stat().st_size} bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
