"""What the worker does: a card that came in is read and gets its stamp."""

import re
import zlib

import django_rq
from django.conf import settings

from . import live, wall
from .models import Card

# The first motif that the text speaks of; without any, the place decides.
MOTIFS = {
    "boat": "sea boat harbour ferry island coast sail ship fish lighthouse",
    "peak": "mountain hill snow climb hut summit valley ski walk",
    "tree": "forest tree garden park autumn birds green river lake",
    "sun": "sun summer beach hot warm evening light desert morning",
    "train": "train station night rails journey city street museum",
}


def later(job, *arguments):
    """Leaves a job to the worker; without a queue it is done at once."""
    if settings.REDIS_URL:
        django_rq.enqueue(job, *arguments)
    else:
        job(*arguments)


def stamp(pk):
    """Counts a card's words, chooses its stamp, and shows it to whoever is looking."""
    card = Card.objects.filter(pk=pk).first()
    if card is None:
        return "gone"
    text = re.findall(r"\w+", card.text.lower())
    seed = zlib.crc32(f"{card.name} {card.place}".encode())
    found = (motif for motif, about in MOTIFS.items() if set(about.split()) & set(text))
    card.words = len(text)
    card.motif = next(found, sorted(MOTIFS)[seed % len(MOTIFS)])
    card.hue = seed % 360
    card.save(update_fields=["words", "motif", "hue"])
    wall.forget()
    live.show("stamped", card)
    return card.motif
