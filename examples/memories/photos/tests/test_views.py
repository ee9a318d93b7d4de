from io import StringIO
from unittest import mock

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client, override_settings
from django.urls import reverse

from photos.models import Album, Photo

from .pictures import MediaTestCase, picture


class PageTests(MediaTestCase):
    def test_empty_gallery_invites(self):
        self.assertContains(self.client.get("/"), "No photos yet")

    @override_settings(APP_VERSION="2026.11-test")
    def test_gallery_album_and_photo_pages(self):
        album = Album.objects.titled("Summer")
        first = self.add(album, picture("one.jpg"))
        second = self.add(album, picture("two.jpg"))
        for url in ("/", album.get_absolute_url(), second.get_absolute_url()):
            page = self.client.get(url)
            self.assertContains(page, "2026.11-test")
            self.assertContains(page, "Two")
        page = self.client.get(second.get_absolute_url())
        self.assertContains(page, reverse("photo", args=[first.pk]))
        self.assertContains(page, "1 of 2")

    def test_pages_while_the_worker_has_not_come_to_it(self):
        photo = Photo.objects.add(Album.objects.titled("Summer"), picture())
        for url in ("/", photo.album.get_absolute_url()):
            self.assertContains(self.client.get(url), 'http-equiv="refresh"')
        self.assertEqual(self.client.get(photo.get_absolute_url()).status_code, 200)
        answer = self.client.get("/api/photos/").json()
        self.assertEqual((answer["waiting"], answer["latest"]["thumbnail"]), (1, None))
        photo.make_thumbnail()
        self.assertNotContains(self.client.get("/"), 'http-equiv="refresh"')

    def test_unknown_photo_and_album(self):
        self.assertEqual(self.client.get("/photos/99/").status_code, 404)
        self.assertEqual(self.client.get("/albums/nowhere/").status_code, 404)

    def test_front_page_does_not_ask_once_per_album(self):
        for title in ("A", "B", "C"):
            self.add(Album.objects.titled(title), picture())
        with self.assertNumQueries(5):
            self.client.get("/")


class UploadTests(MediaTestCase):
    def test_many_files_into_a_new_album(self):
        files = [picture("one.jpg"), picture("two.png", kind="PNG"), picture("three.webp", kind="WEBP")]
        answer = self.client.post("/upload/", {"new_album": "Summer", "images": files})
        self.assertRedirects(answer, "/albums/summer/")
        self.assertEqual({photo.title for photo in Photo.objects.all()}, {"One", "Two", "Three"})

    def test_into_an_album_that_exists(self):
        album = Album.objects.titled("Summer")
        self.client.post("/upload/", {"album": album.pk, "images": [picture()]})
        self.assertEqual(album.photos.count(), 1)

    def test_refusals_store_nothing(self):
        text = SimpleUploadedFile("notes.jpg", b"not a picture", content_type="image/jpeg")
        for data, words in (
            ({"new_album": "A", "images": [picture(), text]}, "notes.jpg is not a picture we can read."),
            ({"new_album": "A", "images": [picture("a.gif", kind="GIF")]}, "not a JPEG, PNG or WebP"),
            ({"new_album": "A"}, "This field is required."),
            ({"images": [picture()]}, "Choose an album"),
        ):
            with self.subTest(words):
                answer = self.client.post("/upload/", data)
                self.assertContains(answer, words, status_code=400)
        self.assertEqual((Photo.objects.count(), Album.objects.count()), (0, 0))

    def test_needs_the_csrf_token(self):
        strict = Client(enforce_csrf_checks=True)
        data = {"new_album": "A", "images": [picture()]}
        self.assertEqual(strict.post("/upload/", data).status_code, 403)
        strict.get("/upload/")
        data = {
            "new_album": "A",
            "images": [picture()],
            "csrfmiddlewaretoken": strict.cookies["csrftoken"].value,
        }
        self.assertEqual(strict.post("/upload/", data).status_code, 302)


class ApiTests(MediaTestCase):
    def test_count_and_latest(self):
        self.assertEqual(self.client.get("/api/photos/").json(), {"count": 0, "waiting": 0, "latest": None})
        photo = self.add(Album.objects.titled("Summer"), picture("one.jpg"))
        answer = self.client.get("/api/photos/").json()
        self.assertEqual(answer["count"], 1)
        self.assertEqual(answer["latest"]["title"], "One")
        self.assertEqual(answer["latest"]["thumbnail"], photo.thumbnail.url)

    def test_health(self):
        self.assertEqual(
            self.client.get("/healthz").json(),
            {"status": "ok", "database": "ok", "version": settings.APP_VERSION},
        )

    def test_health_without_database(self):
        with (
            mock.patch("photos.views.connection.cursor", side_effect=OperationalError("gone")),
            self.assertLogs("photos.views", "ERROR"),
        ):
            answer = self.client.get("/healthz")
        self.assertEqual((answer.status_code, answer.json()["database"]), (503, "unreachable"))


class SeedTests(MediaTestCase):
    def test_seed_twice(self):
        with self.captureOnCommitCallbacks(execute=True):
            call_command("seed", stdout=StringIO())
        count = Photo.objects.exclude(thumbnail="").count()
        self.assertGreaterEqual(count, 6)
        call_command("seed", stdout=StringIO())
        self.assertEqual(Photo.objects.count(), count)
