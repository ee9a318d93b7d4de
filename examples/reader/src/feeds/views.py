import logging

from django.conf import settings
from django.core.paginator import Paginator
from django.db import DatabaseError, connection
from django.db.models import Count, Q
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from .models import Entry, Feed
from .tasks import fetch_all

logger = logging.getLogger(__name__)
ENTRIES_PER_PAGE = 20


def with_feeds(**context):
    """What every page with the list of feeds beside it needs."""
    feeds = Feed.objects.annotate(unread=Count("entries", filter=Q(entries__read_at=None))).order_by("title")
    fetched_at = max((feed.fetched_at for feed in feeds if feed.fetched_at), default=None)
    unread_total = sum(feed.unread for feed in feeds)
    return {**context, "feeds": feeds, "fetched_at": fetched_at, "unread_total": unread_total}


@require_GET
def entries(request, feed=None, unread=False):
    chosen = get_object_or_404(Feed, pk=feed) if feed else None
    found = Entry.objects.select_related("feed")
    if chosen:
        found = found.filter(feed=chosen)
    if unread:
        found = found.filter(read_at=None)
    page = Paginator(found, ENTRIES_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "feeds/entries.html", with_feeds(page=page, chosen=chosen, unread=unread))


@require_GET
def entry(request, pk):
    found = get_object_or_404(Entry.objects.select_related("feed"), pk=pk)
    return render(request, "feeds/entry.html", with_feeds(entry=found, chosen=found.feed))


@require_POST
def toggle_read(request, pk):
    get_object_or_404(Entry, pk=pk).toggle_read()
    back = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    return redirect(back if safe else "entries")


@require_POST
def fetch_now(request):
    """Asks for all feeds; they come when they come."""
    fetch_all()
    return redirect("entries")


@never_cache
@require_GET
def healthz(request):
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        database = "ok"
    except DatabaseError:
        logger.exception("health: the database does not answer")
        database = "unreachable"
    status = "ok" if database == "ok" else "error"
    answer = {"status": status, "database": database, "version": settings.APP_VERSION}
    return JsonResponse(answer, status=200 if status == "ok" else 503)
