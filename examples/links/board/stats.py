"""The numbers beside the list. Counting everything on each request is a waste, so they are cached."""

from django.core.cache import cache
from django.db.models import Count
from django.utils import timezone

from .models import Link, Tag, Vote

KEY = "front-page-stats"
SECONDS = 60


def front_page_stats():
    return cache.get_or_set(KEY, count_everything, SECONDS)


def forget():
    cache.delete(KEY)


def count_everything():
    tags = Tag.objects.annotate(size=Count("links")).filter(size__gt=0).order_by("-size", "name")
    return {
        "links": Link.objects.count(),
        "votes": Vote.objects.count(),
        "voters": Vote.objects.values("voter").distinct().count(),
        "tags": [{"name": tag.name, "size": tag.size, "hue": tag.hue} for tag in tags[:12]],
        "counted_at": timezone.now(),
    }
