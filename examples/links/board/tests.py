from io import StringIO
from unittest import mock

from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client, TestCase, override_settings
from django_q.models import Schedule

from . import stats, tasks
from .models import Link, Tag, Vote


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
class BoardTestCase(TestCase):
    def setUp(self):
        cache.clear()

    def link(self, title="A title", url="https://example.org/", tags=("python",), **values):
        link = Link.objects.create(title=title, url=url, **values)
        link.tags.set(Tag.objects.get_or_create(name=name)[0] for name in tags)
        return link


class VoteTests(BoardTestCase):
    def test_toggle(self):
        link = self.link()
        self.assertTrue(link.toggle_vote("me"))
        self.assertTrue(link.toggle_vote("you"))
        self.assertFalse(link.toggle_vote("me"))
        link.refresh_from_db()
        self.assertEqual((link.score, link.votes.count()), (1, 1))

    def test_twice_at_once_counts_once(self):
        link = self.link()
        with mock.patch.object(type(link.votes.filter()), "delete", return_value=(0, {})):
            self.assertTrue(link.toggle_vote("me"))
            self.assertTrue(link.toggle_vote("me"))
        link.refresh_from_db()
        self.assertEqual(link.score, 1)

    def test_one_vote_per_browser(self):
        link = self.link()
        other = Client()
        self.assertRedirects(self.client.post(f"/links/{link.pk}/vote/"), "/")
        other.post(f"/links/{link.pk}/vote/")
        link.refresh_from_db()
        self.assertEqual(link.score, 2)
        self.assertContains(self.client.get("/"), 'aria-pressed="true"')
        self.client.post(f"/links/{link.pk}/vote/")
        link.refresh_from_db()
        self.assertEqual(link.score, 1)

    def test_json_answer(self):
        link = self.link()
        answer = self.client.post(f"/links/{link.pk}/vote/", headers={"accept": "application/json"})
        self.assertEqual(answer.json(), {"id": link.pk, "score": 1, "voted": True})

    def test_only_post_and_only_with_token(self):
        link = self.link()
        self.assertEqual(self.client.get(f"/links/{link.pk}/vote/").status_code, 405)
        self.assertEqual(Client(enforce_csrf_checks=True).post(f"/links/{link.pk}/vote/").status_code, 403)
        self.assertEqual(Vote.objects.count(), 0)

    def test_next_stays_on_this_site(self):
        link = self.link()
        for target, expected in (
            ("/newest/", "/newest/"),
            ("https://evil.example/", "/"),
            ("//evil.example", "/"),
        ):
            answer = self.client.post(f"/links/{link.pk}/vote/", {"next": target})
            self.assertRedirects(answer, expected)


class ListTests(BoardTestCase):
    def titles(self, url):
        return [link.title for link in self.client.get(url).context["links"]]

    def test_orders(self):
        self.link("old and loved", "https://a.example/", score=5)
        self.link("new", "https://b.example/", tags=("c++",))
        self.assertEqual(self.titles("/"), ["old and loved", "new"])
        self.assertEqual(self.titles("/newest/"), ["new", "old and loved"])
        self.assertEqual(self.titles("/tags/c++/"), ["new"])
        self.assertEqual(self.client.get("/tags/none/").status_code, 404)

    @override_settings(APP_VERSION="2026.11-test")
    def test_empty_board_and_version(self):
        page = self.client.get("/")
        self.assertContains(page, "Nothing here yet")
        self.assertContains(page, "2026.11-test")

    def test_titles_are_escaped(self):
        self.link("<script>alert(1)</script>")
        self.assertNotContains(self.client.get("/"), "<script>")

    def test_number_of_queries_does_not_grow(self):
        for number in range(20):
            self.link(f"{number}", f"https://example.org/{number}", tags=("a", "b"))
        self.client.get("/")
        with self.assertNumQueries(4):  # count, links, tags, related; the statistics are cached
            self.client.get("/")


GOOD = {
    "title": " Parse,  don’t validate ",
    "url": "https://example.org/p",
    "tags": "Haskell, types haskell",
}


class SubmitTests(BoardTestCase):
    def test_submit(self):
        self.assertRedirects(self.client.post("/submit/", GOOD), "/newest/")
        link = Link.objects.get()
        self.assertEqual(link.title, "Parse, don’t validate")
        self.assertEqual([tag.name for tag in link.tags.all()], ["haskell", "types"])

    def test_refusals(self):
        self.link(url="https://example.org/taken")
        for change, words in (
            ({"url": "https://example.org/taken"}, "Somebody has shared this already."),
            ({"url": "javascript:alert(1)"}, "Enter a valid URL."),
            ({"url": "ftp://example.org/"}, "Enter a valid URL."),
            ({"title": ""}, "This field is required."),
            ({"tags": "a b c d e"}, "At most 4 tags"),
            ({"tags": "<b>"}, "Tags are lowercase words."),
            ({"tags": " , "}, "At least one tag"),
        ):
            with self.subTest(words, **change):
                self.assertContains(self.client.post("/submit/", {**GOOD, **change}), words)
        self.assertEqual(Link.objects.count(), 1)

    def test_two_at_once(self):
        self.link(url=GOOD["url"])
        with mock.patch("board.forms.LinkForm.validate_unique"):
            answer = self.client.post("/submit/", GOOD)
        self.assertContains(answer, "Somebody has shared this already.")

    def test_csrf(self):
        strict = Client(enforce_csrf_checks=True)
        self.assertEqual(strict.post("/submit/", GOOD).status_code, 403)
        strict.get("/submit/")
        token = strict.cookies["csrftoken"].value
        answer = strict.post("/submit/", {**GOOD, "csrfmiddlewaretoken": token})
        self.assertEqual(answer.status_code, 302)


class StatsTests(BoardTestCase):
    def test_counted_once_until_something_changes(self):
        self.link()
        first = stats.front_page_stats()
        self.assertEqual((first["links"], first["votes"], first["tags"][0]["name"]), (1, 0, "python"))
        with self.assertNumQueries(0):
            stats.front_page_stats()
        self.client.post(f"/links/{Link.objects.get().pk}/vote/")
        self.assertEqual(stats.front_page_stats()["votes"], 1)
        self.client.post("/submit/", GOOD)
        self.assertEqual(stats.front_page_stats()["links"], 2)


class TaskTests(BoardTestCase):
    def test_what_belongs_together(self):
        near = self.link("Databases explained", "https://a.example/", tags=("databases", "sql"))
        far = self.link("Something else", "https://b.example/", tags=("sql",))
        self.link("Another world", "https://c.example/", tags=("fun",))
        self.client.post("/submit/", {**GOOD, "title": "Databases for all", "tags": "sql databases"})
        link = Link.objects.get(url=GOOD["url"])
        self.assertEqual(list(link.related.order_by("pk")), [near, far])
        self.assertContains(self.client.get("/newest/"), "see also")
        self.assertEqual(tasks.relate(99), 0)

    def test_at_most_three(self):
        for number in range(6):
            self.link(f"{number}", f"https://example.org/{number}")
        link = self.link(url="https://example.org/x")
        self.assertEqual(tasks.relate(link.pk), 6)
        self.assertEqual(link.related.count(), 3)

    def test_counted_beforehand(self):
        self.link()
        self.assertEqual(tasks.count(), 1)
        with self.assertNumQueries(0):
            self.assertEqual(stats.front_page_stats()["links"], 1)

    def test_the_schedule_stands_in_the_database_once(self):
        call_command("migrate", verbosity=0)
        schedule = Schedule.objects.get()
        self.assertEqual((schedule.func, schedule.minutes), ("board.tasks.count", 1))


class ApiTests(BoardTestCase):
    def test_links(self):
        link = self.link(score=3)
        answer = self.client.get("/api/links/").json()
        self.assertEqual(answer["count"], 1)
        self.assertEqual(answer["links"][0]["id"], link.pk)
        self.assertEqual(answer["links"][0]["tags"], ["python"])

    def test_healthy(self):
        expected = {"status": "ok", "database": "ok", "cache": "ok", "version": settings.APP_VERSION}
        self.assertEqual(self.client.get("/healthz").json(), expected)

    def test_sick(self):
        for target, error, name in (
            ("board.views.connection.cursor", OperationalError("gone"), "database"),
            ("board.views.cache.set", ConnectionError("gone"), "cache"),
        ):
            with (
                self.subTest(name),
                mock.patch(target, side_effect=error),
                self.assertLogs("board.views", "ERROR"),
            ):
                answer = self.client.get("/healthz")
                self.assertEqual((answer.status_code, answer.json()[name]), (503, "unreachable"))


class SeedTests(BoardTestCase):
    def test_seed_twice(self):
        for _ in range(2):
            call_command("seed", stdout=StringIO())
        self.assertEqual(Link.objects.count(), 15)
        self.assertEqual(Link.objects.first().score, Link.objects.first().votes.count())
