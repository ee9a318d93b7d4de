from datetime import datetime, timedelta, timezone

from django.test import SimpleTestCase

from feeds.parsing import FeedError, moment, paragraphs, parse

RSS = """<rss version="2.0"><channel><title>Ours</title><link>https://ours.example/</link>
<item><title>Fish &amp;amp; chips</title><link>https://ours.example/1</link>
<pubDate>Tue, 03 Mar 2026 10:00:00 +0100</pubDate>
<description>&lt;p&gt;One&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;p&gt;Two &lt;b&gt;bold&lt;/b&gt;&lt;/p&gt;</description></item>
<item><title>Trap</title><link>javascript:alert(1)</link></item></channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Theirs</title>
<link rel="self" href="https://theirs.example/feed"/><link href="https://theirs.example/"/>
<entry><id>x:1</id><title>First</title><link href="https://theirs.example/1"/><updated>2026-03-03T09:00:00Z</updated>
<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><p>Plain <em>words</em></p></div></content></entry></feed>"""


class ParsingTests(SimpleTestCase):
    def test_rss(self):
        feed = parse(RSS.encode())
        self.assertEqual((feed.title, feed.site, len(feed.entries)), ("Ours", "https://ours.example/", 2))
        first, trap = feed.entries
        self.assertEqual((first.title, first.uid), ("Fish & chips", "https://ours.example/1"))
        self.assertEqual(first.text, "One\n\nTwo bold")
        self.assertEqual(first.published_at.utcoffset(), timedelta(hours=1))
        self.assertEqual((trap.link, trap.uid, trap.published_at), ("", "Trap", None))

    def test_atom(self):
        feed = parse(ATOM.encode())
        self.assertEqual((feed.title, feed.site), ("Theirs", "https://theirs.example/"))
        self.assertEqual(feed.entries[0].text, "Plain words")
        self.assertEqual(feed.entries[0].published_at, datetime(2026, 3, 3, 9, tzinfo=timezone.utc))

    def test_refusals(self):
        bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><rss><channel/></rss>'
        for document in (b"", b"<rss>", b"<html/>", b"<rss/>", bomb, b"\xff\xfe\x00"):
            with self.subTest(document), self.assertRaises(FeedError):
                parse(document)

    def test_dates(self):
        self.assertIsNone(moment("yesterday"))
        self.assertIsNone(moment(""))
        self.assertEqual(moment("2026-03-03T09:00:00").tzinfo, timezone.utc)

    def test_paragraphs(self):
        self.assertEqual(paragraphs("a<br>b<ul><li>c</li></ul> &lt;d&gt;"), "a\n\nb\n\nc\n\n<d>")
