import logging
import uuid

from django.conf import settings
from django.contrib import messages
from django.core.cache import cache
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse_lazy
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django.views.generic import CreateView, ListView
from django_q.tasks import async_task

from . import stats
from .forms import LinkForm
from .models import Link, Tag, Vote

logger = logging.getLogger(__name__)


class LinkList(ListView):
    template_name = "board/list.html"
    context_object_name = "links"
    paginate_by = 25
    newest = False

    def get_queryset(self):
        links = Link.objects.prefetch_related("tags", "related")
        if "tag" in self.kwargs:
            links = links.filter(tags=get_object_or_404(Tag, name=self.kwargs["tag"]))
        return links.order_by("-submitted_at", "-pk") if self.newest else links

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs)
        voter = self.request.session.session_key
        shown = [link.pk for link in context["links"]]
        votes = Vote.objects.filter(voter=voter, link__in=shown) if voter else Vote.objects.none()
        return {
            **context,
            "tag": self.kwargs.get("tag"),
            "newest": self.newest,
            "stats": stats.front_page_stats(),
            "voted": set(votes.values_list("link_id", flat=True)),
        }


class SubmitView(CreateView):
    form_class = LinkForm
    template_name = "board/submit.html"
    success_url = reverse_lazy("newest")

    def form_valid(self, form):
        try:
            with transaction.atomic():
                answer = super().form_valid(form)
        except IntegrityError:  # shared by somebody else between the check and the insert
            form.add_error("url", "Somebody has shared this already.")
            return self.form_invalid(form)
        stats.forget()
        async_task("board.tasks.relate", self.object.pk)
        logger.info("submitted: %s", self.object.url)
        messages.success(self.request, "Thank you. It is on the list.")
        return answer


@require_POST
def vote(request, pk):
    link = get_object_or_404(Link, pk=pk)
    if not request.session.session_key:
        request.session["voter"] = True  # an empty session is not kept
        request.session.save()
    voted = link.toggle_vote(request.session.session_key)
    stats.forget()
    if "application/json" in request.headers.get("Accept", ""):
        link.refresh_from_db()
        return JsonResponse({"id": link.pk, "score": link.score, "voted": voted})
    back = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    return redirect(back if safe else "top")


@require_GET
def api_links(request):
    links = Link.objects.prefetch_related("tags", "related")
    return JsonResponse(
        {
            "count": links.count(),
            "links": [
                {
                    "id": link.pk,
                    "title": link.title,
                    "url": link.url,
                    "score": link.score,
                    "tags": [tag.name for tag in link.tags.all()],
                    "related": [other.pk for other in link.related.all()],
                    "submitted_at": link.submitted_at.isoformat(),
                }
                for link in links[:50]
            ],
        }
    )


@never_cache
@require_GET
def healthz(request):
    checks = {"database": check_database, "cache": check_cache}
    results = {name: check() for name, check in checks.items()}
    healthy = all(results.values())
    answer = {
        "status": "ok" if healthy else "error",
        **{name: "ok" if well else "unreachable" for name, well in results.items()},
        "version": settings.APP_VERSION,
    }
    return JsonResponse(answer, status=200 if healthy else 503)


def check_database():
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone() == (1,)
    except DatabaseError:
        logger.exception("health: the database does not answer")
        return False


def check_cache():
    key = f"health-{uuid.uuid4().hex}"
    try:
        cache.set(key, "here", 10)
        found = cache.get(key) == "here"
        cache.delete(key)
    except Exception:  # each cache backend raises errors of its own
        logger.exception("health: the cache does not answer")
        return False
    return found
