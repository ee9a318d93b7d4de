import logging

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import DatabaseError, connection, transaction
from django.db.models import Count, OuterRef, Subquery
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from .forms import UploadForm
from .models import Album, Moment, Photo

logger = logging.getLogger(__name__)
PHOTOS_PER_PAGE = 24


@require_GET
def home(request):
    photos = Photo.objects.select_related("album")
    newest = Photo.objects.filter(album=OuterRef("pk")).values("pk")[:1]
    filled = Album.objects.annotate(size=Count("photos"), cover_id=Subquery(newest)).filter(size__gt=0)
    albums = list(filled.order_by("-cover_id")[:12])
    covers = Photo.objects.in_bulk([each.cover_id for each in albums])
    for each in albums:
        each.cover = covers[each.cover_id]
    page = Paginator(photos, PHOTOS_PER_PAGE).get_page(request.GET.get("page"))
    rest = list(page.object_list)
    hero = rest.pop(0) if rest and page.number == 1 else None  # the newest is shown large
    moment = Moment.objects.select_related("photo__album").first()
    context = {"page": page, "albums": albums, "hero": hero, "rest": rest, "moment": moment}
    return render(request, "photos/home.html", context | {"waiting": waiting([*covers.values(), *page])})


@require_GET
def album(request, slug):
    found = get_object_or_404(Album, slug=slug)
    page = Paginator(found.photos.all(), PHOTOS_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "photos/album.html", {"album": found, "page": page, "waiting": waiting(page)})


def waiting(photos):
    """Whether a thumbnail among these is still being made."""
    return any(not photo.thumbnail for photo in photos)


@require_GET
def photo(request, pk):
    found = get_object_or_404(Photo.objects.select_related("album"), pk=pk)
    order = list(found.album.photos.values_list("pk", flat=True))
    place = order.index(found.pk)
    context = {
        "photo": found,
        "place": place + 1,
        "size": len(order),
        "previous": order[place - 1] if place else None,
        "next": order[place + 1] if place + 1 < len(order) else None,
    }
    return render(request, "photos/photo.html", context)


@require_http_methods(["GET", "POST"])
def upload(request):
    form = UploadForm(request.POST or None, request.FILES or None, initial={"album": request.GET.get("album")})
    if request.method == "POST" and form.is_valid():
        images = form.cleaned_data["images"]
        with transaction.atomic():
            target = form.cleaned_data["album"] or Album.objects.titled(form.cleaned_data["new_album"])
            for image in images:
                Photo.objects.add(target, image)
        logger.info("%d photos added to album %s", len(images), target.slug)
        messages.success(request, f"{len(images)} new in “{target}”.")
        return redirect(target)
    return render(request, "photos/upload.html", {"form": form}, status=400 if form.errors else 200)


@require_GET
def api_photos(request):
    latest = Photo.objects.select_related("album").first()
    counts = {"count": Photo.objects.count(), "waiting": Photo.objects.filter(thumbnail="").count()}
    return JsonResponse({**counts, "latest": latest and as_json(latest)})


def as_json(photo):
    return {
        "id": photo.pk,
        "title": photo.title,
        "album": photo.album.title,
        "page": photo.get_absolute_url(),
        "image": photo.image.url,
        "thumbnail": photo.thumbnail.url if photo.thumbnail else None,
        "width": photo.width,
        "height": photo.height,
        "uploaded_at": photo.uploaded_at.isoformat(),
    }


@never_cache
@require_GET
def healthz(request):
    answer = {"status": "ok", "database": "ok", "version": settings.APP_VERSION}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as exc:
        logger.error("health: database: %s", exc)
        return JsonResponse({**answer, "status": "error", "database": "unreachable"}, status=503)
    return JsonResponse(answer)
