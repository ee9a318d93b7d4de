"""A front end in a tiny project: `npm run build` makes assets/npm.js, which collectstatic collects and nginx serves."""

from __future__ import annotations

import json
from pathlib import Path

#: The build needs what `npm ci` installs: from a folder, so that nothing is fetched.
_FILES = {
    "package.json": json.dumps({
        "name": "front", "private": True, "dependencies": {"words": "file:words"},
        "scripts": {"build": "node build.mjs npm"},
    }),
    "package-lock.json": json.dumps({
        "name": "front", "lockfileVersion": 3, "packages": {
            "": {"name": "front", "dependencies": {"words": "file:words"}},
            "node_modules/words": {"resolved": "words", "link": True},
            "words": {"name": "words", "version": "1.0.0"},
        },
    }),
    "words/package.json": json.dumps({"name": "words", "version": "1.0.0", "main": "index.js"}),
    "words/index.js": 'module.exports = "words of a package";\n',
    "build.mjs": """\
import { mkdirSync, writeFileSync } from "node:fs";
const [by] = process.argv.slice(2);
const words = by === "npm" ? (await import("words")).default : "no package yet";
mkdirSync("assets", { recursive: true });
writeFileSync(`assets/${by}.js`, `console.log("${words}, ${process.version}, ${process.env.npm_lifecycle_event}");\\n`);
""",
}  # fmt: skip
_SETTINGS = """
INSTALLED_APPS += ["django.contrib.staticfiles"]
STATIC_URL = "/static/"
STATIC_ROOT = os.environ["STATIC_ROOT"]
STATICFILES_DIRS = ["assets"]
"""


def write(folder: Path) -> None:
    """Puts it into a tiny project that is there."""
    for name, text in _FILES.items():
        place = folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    with (folder / "tiny/settings.py").open("a") as settings:
        settings.write(_SETTINGS)
