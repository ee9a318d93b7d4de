from datetime import timedelta
from io import StringIO
from unittest import mock

from channels.layers import InMemoryChannelLayer, channel_layers
from channels.testing import WebsocketCommunicator
from django.core.cache import cache
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client, TestCase, TransactionTestCase, override_settings
from django.utils import timezone
from postcards_site.asgi import application

from . import jobs, live, wall
from .models import Card

GOOD = {"name": "Ida", "place": "Reine", "text": "The ferry was late."}


@override_settings(
    REDIS_URL="",
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
class PostTestCase(TestCase):
    def setUp(self):
        cache.clear()


class WallTests(PostTestCase):
    def test_a_card_hangs_on_the_wall_with_its_stamp(self):
        self.assertRedirects(self.client.post("/", GOOD), "/")
        card = Card.objects.get()
        self.assertEqual((card.words, card.motif), (4, "boat"))
        page = self.client.get("/")
        self.assertContains(page, "The ferry was late.")
        self.assertContains(page, "A stamp with a boat")

    def test_the_place_decides_where_the_text_says_nothing(self):
        for place in ("Here", "There"):
            card = Card.objects.create(name="X", place=place, text="Hm.")
            self.assertIn(jobs.stamp(card.pk), jobs.MOTIFS)
        self.assertEqual(jobs.stamp(99), "gone")

    def test_rendered_once_until_something_changes(self):
        Card.objects.create(**GOOD)
        self.assertContains(self.client.get("/"), "stamp<br>follows")
        with self.assertNumQueries(0):
            self.client.get("/")
        self.client.post("/", {**GOOD, "name": "Tom"})
        self.assertContains(self.client.get("/"), "Tom")

    def test_refusals(self):
        for change in ({"text": ""}, {"name": "x" * 41}, {"text": "x" * 281}, {"place": ""}):
            with self.subTest(**change):
                self.assertEqual(self.client.post("/", {**GOOD, **change}).status_code, 400)
        self.assertEqual(Client(enforce_csrf_checks=True).post("/", GOOD).status_code, 403)
        self.assertEqual(Card.objects.count(), 0)

    def test_escaped(self):
        self.client.post("/", {**GOOD, "text": "<script>alert(1)</script>"})
        self.assertNotContains(self.client.get("/"), "<script>alert")

    @override_settings(REDIS_URL="redis://queue.example")
    def test_with_a_queue_the_worker_does_it(self):
        with mock.patch("django_rq.enqueue") as enqueue:
            self.client.post("/", GOOD)
        card = Card.objects.get()
        enqueue.assert_called_once_with(jobs.stamp, card.pk)
        self.assertIsNone(card.words)

    def test_json(self):
        self.client.post("/", GOOD)
        answer = self.client.get("/api/cards/").json()
        self.assertEqual((answer["count"], answer["cards"][0]["words"]), (1, 4))


class LiveTests(TransactionTestCase):
    async def test_a_card_is_shown_to_who_looks(self):
        layer = InMemoryChannelLayer()
        channel_layers.set("default", layer)
        self.addCleanup(channel_layers.set, "default", None)
        headers = [(b"origin", b"http://testserver"), (b"host", b"testserver")]
        socket = WebsocketCommunicator(application, "/live/", headers=headers)
        self.assertTrue((await socket.connect())[0])
        await socket.send_json_to("hello")
        self.assertEqual(await socket.receive_json_from(), {"what": "welcome"})
        await layer.group_send(live.GROUP, {"type": "card", "what": "arrived", "id": 7, "html": "<article>"})
        self.assertEqual(await socket.receive_json_from(), {"what": "arrived", "id": 7, "html": "<article>"})
        await socket.disconnect()

    async def test_not_from_another_site(self):
        headers = [(b"origin", b"http://evil.example"), (b"host", b"testserver")]
        socket = WebsocketCommunicator(application, "/live/", headers=headers)
        self.assertFalse((await socket.connect())[0])


class RestTests(PostTestCase):
    def test_health(self):
        self.assertEqual(self.client.get("/healthz").json(), {"status": "ok", "database": "ok", "cache": "ok"})
        for target, error in (
            ("mail.views.connection.ensure_connection", OperationalError("gone")),
            ("mail.views.cache.set", ConnectionError("gone")),
        ):
            with self.subTest(target), mock.patch(target, side_effect=error), self.assertLogs("mail.views", "ERROR"):
                self.assertEqual(self.client.get("/healthz").status_code, 503)

    def test_seed_twice(self):
        for _ in range(2):
            call_command("seed", stdout=StringIO())
        self.assertEqual(Card.objects.exclude(motif="").count(), 9)

    def test_tidy(self):
        Card.objects.create(**GOOD, sent_at=timezone.now() - timedelta(days=400))
        Card.objects.create(**GOOD)
        wall.html()
        out = StringIO()
        call_command("tidy", stdout=out)
        self.assertIn("1 cards taken down, 1 stay", out.getvalue())
