import logging

from django.conf import settings
from huey import crontab
from huey.contrib.djhuey import db_periodic_task, db_task, lock_task

from .fetching import SAMPLES, fetch, subscribe
from .models import Feed

logger = logging.getLogger(__name__)


@db_task()
@lock_task("fetch")  # who is asked twice fetches once
def fetch_all():
    feeds = list(Feed.objects.all()) or [subscribe(source) for source in SAMPLES]
    added = sum(fetch(feed) for feed in feeds)
    logger.info("%d feeds fetched, %d new", len(feeds), added)


@db_periodic_task(crontab(minute=f"*/{settings.FETCH_MINUTES}"))
def fetch_now_and_then():
    fetch_all()
