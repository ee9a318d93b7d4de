from datetime import datetime, timedelta
from unittest import mock

from django.test import TestCase
from django.utils import timezone

from feeds.models import Entry, Feed
from feeds.tasks import fetch_all, fetch_now_and_then


class TaskTests(TestCase):
    def test_the_samples_when_there_is_nothing_else(self):
        self.assertRedirects(self.client.post("/fetch/"), "/")
        self.assertEqual((Feed.objects.count(), Entry.objects.count()), (2, 10))
        self.assertContains(self.client.get("/"), "Fetched 0\xa0minutes ago.")

    def test_what_is_subscribed_to(self):
        feed = Feed.objects.create(
            source="sample_feeds/slow-kettle.rss", fetched_at=timezone.now() - timedelta(days=1)
        )
        fetch_now_and_then.call_local()
        feed.refresh_from_db()
        self.assertEqual((Feed.objects.count(), Entry.objects.count()), (1, 5))
        self.assertLess(timezone.now() - feed.fetched_at, timedelta(minutes=1))

    def test_asked_twice_it_is_fetched_once(self):
        def asked_again(feed):
            fetch_all()
            return 0

        with mock.patch("feeds.tasks.fetch", side_effect=asked_again) as fetch:
            fetch_all()
        self.assertEqual(fetch.call_count, 2)

    def test_a_quarter_of_an_hour(self):
        due = fetch_now_and_then.task_class().validate_datetime
        self.assertTrue(due(datetime(2026, 3, 3, 9, 15)))
        self.assertFalse(due(datetime(2026, 3, 3, 9, 16)))

    def test_only_by_post(self):
        self.assertEqual(self.client.get("/fetch/").status_code, 405)
