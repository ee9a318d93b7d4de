import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path

from django.core.management import CommandError, call_command
from django.test import TestCase

from feeds.models import Entry, Feed

from .test_parsing import ATOM, RSS


class FeedServer(BaseHTTPRequestHandler):
    """Serves one Atom feed at /feed, and remembers what was answered."""

    def do_GET(self):
        fresh = self.headers.get("If-None-Match") == '"one"'
        status = 404 if self.path != "/feed" else 304 if fresh else 200
        self.server.answered.append(status)
        self.send_response(status)
        self.send_header("ETag", '"one"')
        self.end_headers()
        if status == 200:
            self.wfile.write(ATOM.encode())

    def log_message(self, *args):
        pass


class FetchTests(TestCase):
    def fetch(self, *sources):
        out = StringIO()
        call_command("fetch", *sources, stdout=out, stderr=out)
        return out.getvalue()

    def file(self, text):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "feed.xml"
        path.write_text(text)
        return path

    def test_samples_the_first_time_and_nothing_twice(self):
        self.assertIn("5 new", self.fetch())
        self.assertEqual((Feed.objects.count(), Entry.objects.count()), (2, 10))
        entry = Entry.objects.first()
        entry.toggle_read()
        self.assertIn("0 new", self.fetch())
        self.assertEqual((Feed.objects.count(), Entry.objects.count()), (2, 10))
        entry.refresh_from_db()
        self.assertIsNotNone(entry.read_at)

    def test_a_file_that_changes(self):
        path = self.file(RSS)
        self.fetch(str(path))
        path.write_text(RSS.replace("Fish", "Peas"))
        self.fetch()
        self.assertEqual(Entry.objects.get(uid="https://ours.example/1").title, "Peas & chips")
        self.assertEqual(Entry.objects.count(), 2)

    def test_a_bad_feed_does_not_hinder_the_others(self):
        good, bad = str(self.file(RSS)), str(self.file("<html/>"))
        with self.assertLogs("feeds.fetching", "WARNING"):
            out = self.fetch(bad, good)
        self.assertIn("2 new", out)
        self.assertIn("neither RSS nor Atom", Feed.objects.get(source=bad).problem)
        self.assertContains(self.client.get("/"), "could not be fetched")

    def test_nothing_could_be_fetched(self):
        with self.assertLogs("feeds.fetching", "WARNING"), self.assertRaises(CommandError):
            self.fetch("/nowhere/feed.xml")

    def test_over_http_only_what_changed(self):
        server = HTTPServer(("127.0.0.1", 0), FeedServer)
        server.answered = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        address = f"http://127.0.0.1:{server.server_port}/feed"
        self.assertIn("1 new", self.fetch(address))
        self.assertIn("0 new", self.fetch(address))
        self.assertEqual(server.answered, [200, 304])
        with self.assertLogs("feeds.fetching", "WARNING"), self.assertRaises(CommandError):
            self.fetch(f"{address}/none")
