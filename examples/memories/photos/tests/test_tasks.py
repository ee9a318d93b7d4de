from datetime import timedelta
from pathlib import Path
from unittest import mock

from config import celery_app
from django.utils import timezone
from kombu.exceptions import OperationalError

from photos.models import Album, Moment, Photo
from photos.tasks import catch_up, make_thumbnail, remember

from .pictures import MediaTestCase, picture


class TaskTests(MediaTestCase):
    def test_a_thumbnail_made_twice_is_one_file(self):
        photo = self.add(Album.objects.titled("A"), picture())
        first = Path(photo.thumbnail.path)
        make_thumbnail.delay(photo.pk)
        photo.refresh_from_db()
        second = Path(photo.thumbnail.path)
        self.assertTrue(second.is_file())
        self.assertEqual(len(list(first.parent.iterdir())), 1)

    def test_a_photo_that_is_gone(self):
        make_thumbnail.delay(99)
        self.assertEqual(Photo.objects.count(), 0)

    def test_a_broker_that_is_down_spoils_no_upload(self):
        with (
            mock.patch.object(make_thumbnail, "delay", side_effect=OperationalError("gone")),
            self.assertLogs("django.test", "ERROR"),
        ):
            photo = self.add(Album.objects.titled("A"), picture())
        self.assertFalse(photo.thumbnail)
        catch_up.delay()  # it may still be on its way
        photo.refresh_from_db()
        self.assertFalse(photo.thumbnail)
        Photo.objects.update(uploaded_at=timezone.now() - timedelta(minutes=10))
        catch_up.delay()
        photo.refresh_from_db()
        self.assertTrue(photo.thumbnail)

    def test_remembering(self):
        remember.delay()
        self.assertEqual(Moment.objects.count(), 0)
        photo = self.add(Album.objects.titled("A"), picture("red_kite.jpg"))
        old = Moment.objects.create(photo=photo, chosen_at=timezone.now() - timedelta(days=30))
        remember.delay()
        self.assertFalse(Moment.objects.filter(pk=old.pk).exists())
        self.assertContains(self.client.get("/"), "Do you remember?")

    def test_every_scheduled_task_is_there(self):
        celery_app.loader.import_default_modules()
        for entry in celery_app.conf.beat_schedule.values():
            self.assertIn(entry["task"], celery_app.tasks)
