from unittest import mock

from django.conf import settings
from django.db import OperationalError, connection
from django.test import Client, TestCase, override_settings

from feeds.models import Entry, Feed


class PageTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.feed = Feed.objects.create(source="a.xml", title="A feed")
        cls.other = Feed.objects.create(source="b.xml", title="Another")
        cls.entry = Entry.objects.create(
            feed=cls.feed, uid="1", title="Hello", text="First.\n\n<b>Second.</b>"
        )
        Entry.objects.create(feed=cls.other, uid="1", title="Goodbye")

    def titles(self, url):
        return {entry.title for entry in self.client.get(url).context["page"]}

    def test_lists(self):
        self.assertEqual(self.titles("/"), {"Hello", "Goodbye"})
        self.assertEqual(self.titles(self.feed.get_absolute_url()), {"Hello"})
        self.assertEqual(self.client.get("/feeds/99/").status_code, 404)

    @override_settings(APP_VERSION="2026.11-test")
    def test_entry(self):
        page = self.client.get(self.entry.get_absolute_url())
        self.assertContains(page, "<p>First.</p>")
        self.assertContains(page, "&lt;b&gt;Second.&lt;/b&gt;")
        self.assertContains(page, "2026.11-test")

    def test_read_and_unread(self):
        url = f"/entries/{self.entry.pk}/read/"
        self.assertRedirects(self.client.post(url, {"next": "/unread/"}), "/unread/")
        self.assertEqual(self.titles("/unread/"), {"Goodbye"})
        self.assertRedirects(self.client.post(url, {"next": "https://evil.example/"}), "/")
        self.assertEqual(self.titles("/unread/"), {"Hello", "Goodbye"})

    def test_toggle_needs_post_and_token(self):
        url = f"/entries/{self.entry.pk}/read/"
        self.assertEqual(self.client.get(url).status_code, 405)
        strict = Client(enforce_csrf_checks=True)
        self.assertEqual(strict.post(url).status_code, 403)
        strict.get("/")
        token = strict.cookies["csrftoken"].value
        self.assertEqual(strict.post(url, {"csrfmiddlewaretoken": token}).status_code, 302)

    def test_front_page_queries(self):
        with self.assertNumQueries(3):
            self.client.get("/")

    def test_minutes(self):
        self.assertEqual(Entry(text="word " * 1100).minutes, 5)
        self.assertEqual(Entry(text="").minutes, 1)


class HealthTests(TestCase):
    def test_well(self):
        expected = {"status": "ok", "database": "ok", "version": settings.APP_VERSION}
        self.assertEqual(self.client.get("/healthz").json(), expected)

    def test_sick(self):
        with (
            mock.patch("feeds.views.connection.cursor", side_effect=OperationalError("gone")),
            self.assertLogs("feeds.views", "ERROR"),
        ):
            self.assertEqual(self.client.get("/healthz").status_code, 503)

    def test_sqlite_waits_for_locks(self):
        if connection.vendor != "sqlite":
            self.skipTest("not on SQLite")
        with connection.cursor() as cursor:
            self.assertEqual(cursor.execute("PRAGMA busy_timeout").fetchone(), (5000,))
