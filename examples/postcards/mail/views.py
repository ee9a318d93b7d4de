import logging
import uuid

from django import forms
from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection
from django.http import JsonResponse
from django.shortcuts import redirect, render
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from . import live, wall
from .jobs import later, stamp
from .models import Card

logger = logging.getLogger(__name__)


class CardForm(forms.ModelForm):
    class Meta:
        model = Card
        fields = ("text", "name", "place")
        widgets = {"text": forms.Textarea(attrs={"rows": 4, "placeholder": "Greetings from…"})}  # noqa: RUF012


@require_http_methods(["GET", "POST"])
def home(request):
    form = CardForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        card = form.save()
        wall.forget()
        live.show("arrived", card)
        later(stamp, card.pk)
        logger.info("a card from %s", card)
        return redirect("home")
    context = {"form": form, "wall": mark_safe(wall.html()), "app_version": settings.APP_VERSION}
    return render(request, "mail/home.html", context, status=400 if form.errors else 200)


@require_GET
def api_cards(request):
    fields = ("id", "name", "place", "text", "sent_at", "words", "motif")
    return JsonResponse({"count": Card.objects.count(), "cards": list(Card.objects.values(*fields)[:50])})


@never_cache
@require_GET
def healthz(request):
    results = {"database": database_answers(), "cache": cache_answers()}
    well = all(results.values())
    answer = {name: "ok" if each else "unreachable" for name, each in results.items()}
    return JsonResponse({"status": "ok" if well else "error", **answer}, status=200 if well else 503)


def database_answers():
    try:
        connection.ensure_connection()
        return connection.is_usable()
    except DatabaseError:
        logger.exception("the database does not answer")
        return False


def cache_answers():
    key = f"health-{uuid.uuid4().hex}"
    try:
        cache.set(key, 1, 10)
        return cache.get(key) == 1
    except Exception:  # the errors are those of the cache's own client
        logger.exception("the cache does not answer")
        return False
