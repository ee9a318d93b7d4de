"""Fetching feeds, from files and from the web, into the database."""

import logging
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .models import Entry, Feed
from .parsing import FeedError, parse

logger = logging.getLogger(__name__)

SAMPLES = ("sample_feeds/slow-kettle.rss", "sample_feeds/night-train.atom")
MAX_BYTES = 5 * 1024 * 1024
TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Document:
    body: bytes
    etag: str = ""
    last_modified: str = ""


def fetch(feed):
    """Bring a feed up to date; answers how many entries are new.

    What goes wrong is written into `feed.problem`, for the next feed is not to suffer from it.
    """
    try:
        document = read(feed)
        added = store(feed, document) if document else 0
        feed.problem = ""
    except (FeedError, OSError, HTTPException, ValueError) as exc:
        logger.warning("%s: %s", feed.source, exc)
        feed.problem, added = str(exc)[:300], 0
    feed.fetched_at = timezone.now()
    feed.save()
    return added


def read(feed):
    """The feed's document, or None when it has not changed."""
    if feed.source.startswith(("http://", "https://")):
        return read_web(feed)
    path = settings.BASE_DIR / feed.source  # an absolute path stays what it is
    if path.stat().st_size > MAX_BYTES:
        raise FeedError("the file is too large")
    return Document(Path(path).read_bytes())


def read_web(feed):
    headers = {"User-Agent": "reader/1.0", "Accept": "application/atom+xml, application/rss+xml, */*;q=0.5"}
    if feed.etag:
        headers["If-None-Match"] = feed.etag
    if feed.last_modified:
        headers["If-Modified-Since"] = feed.last_modified
    try:
        with urlopen(Request(feed.source, headers=headers), timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                raise FeedError("the feed is too large")
            return Document(body, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))
    except HTTPError as exc:
        exc.close()
        if exc.code == 304:
            return None
        raise


@transaction.atomic
def store(feed, document):
    parsed = parse(document.body)
    feed.title, feed.site = parsed.title[:200] or feed.source[:200], parsed.site[:500]
    feed.etag, feed.last_modified = document.etag[:200], document.last_modified[:60]
    added = 0
    for entry in parsed.entries:
        values = {
            "title": entry.title[:300] or "Untitled",
            "link": entry.link if len(entry.link) <= 1000 else "",
            "author": entry.author[:120],
            "text": entry.text,
        }
        if entry.published_at:
            values["published_at"] = entry.published_at
        _, new = Entry.objects.update_or_create(feed=feed, uid=entry.uid[:500], defaults=values)
        added += new
    return added


def subscribe(source):
    return Feed.objects.get_or_create(source=source, defaults={"title": source[:200]})[0]
