"""What the cluster does: look for links that belong together, and count before a visitor has to wait for it."""

import re

from django.core.cache import cache

from . import stats
from .models import Link

MOST = 3
CANDIDATES = 200
SHORT = 4  # letters: "the", "to" and "uses" say nothing


def relate(pk):
    """Find the links that a link is most like: by tags, then by the words of their titles."""
    link = Link.objects.prefetch_related("tags").filter(pk=pk).first()
    if link is None:
        return 0
    others = Link.objects.filter(tags__in=link.tags.all()).exclude(pk=pk).distinct()
    found = sorted(
        ((likeness(link, other), -order, other) for order, other in enumerate(candidates(others))),
        key=lambda each: each[:2],
        reverse=True,
    )
    link.related.set(other for _, _, other in found[:MOST])
    return len(found)


def candidates(links):
    return links.prefetch_related("tags")[:CANDIDATES]


def likeness(one, other):
    tags = {tag.pk for tag in one.tags.all()} & {tag.pk for tag in other.tags.all()}
    return 2 * len(tags) + len(words(one.title) & words(other.title))


def words(title):
    return {word for word in re.findall(r"\w+", title.lower()) if len(word) > SHORT}


def count():
    """Keeps the numbers beside the list fresh: whoever comes next finds them counted."""
    numbers = stats.count_everything()
    cache.set(stats.KEY, numbers, stats.SECONDS)
    return numbers["links"]
