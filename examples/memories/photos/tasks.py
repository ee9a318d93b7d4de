import logging
from datetime import timedelta

from celery import shared_task
from django.db import transaction
from django.utils import timezone

from .models import Moment, Photo

logger = logging.getLogger(__name__)
PATIENCE = timedelta(minutes=2)  # what has no thumbnail after that was forgotten
KEPT = timedelta(days=7)


@shared_task
def make_thumbnail(pk):
    with transaction.atomic():
        photo = Photo.objects.select_for_update().filter(pk=pk).first()
        if photo is None:
            logger.info("photo %s is gone", pk)
        else:
            photo.make_thumbnail()


@shared_task
def catch_up():
    """Thumbnails that were never made: the broker was down, or the worker was killed."""
    missing = Photo.objects.filter(thumbnail="", uploaded_at__lt=timezone.now() - PATIENCE)
    for pk in missing.values_list("pk", flat=True):
        make_thumbnail.delay(pk)


@shared_task
def remember():
    """Choose a photo to be shown on the front page for a while."""
    photo = Photo.objects.exclude(thumbnail="").order_by("?").first()
    if photo:
        Moment.objects.create(photo=photo)
        Moment.objects.filter(chosen_at__lt=timezone.now() - KEPT).delete()
