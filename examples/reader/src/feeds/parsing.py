"""From the bytes of an RSS or Atom document to plain values."""

from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

ATOM = "{http://www.w3.org/2005/Atom}"
DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
CONTENT = "{http://purl.org/rss/1.0/modules/content/}encoded"


class FeedError(ValueError):
    """The document is not a feed that we can read."""


@dataclass(frozen=True)
class ParsedEntry:
    uid: str
    title: str
    link: str
    author: str
    text: str
    published_at: datetime | None


@dataclass(frozen=True)
class ParsedFeed:
    title: str
    site: str
    entries: tuple[ParsedEntry, ...]


def parse(document):
    # Feeds need no entities of their own, and those are what XML bombs are made of.
    if b"<!ENTITY" in document:
        raise FeedError("the document declares entities")
    try:
        root = ElementTree.fromstring(document)
    except (ElementTree.ParseError, ValueError, LookupError) as exc:
        raise FeedError(f"not well-formed XML: {exc}") from exc
    if root.tag == "rss" and root.find("channel") is not None:
        return parse_rss(root.find("channel"))
    if root.tag == f"{ATOM}feed":
        return parse_atom(root)
    raise FeedError(f"neither RSS nor Atom, but <{root.tag}>")


def parse_rss(channel):
    entries = []
    for item in channel.findall("item"):
        link = web_address(value(item, "link"))
        title = value(item, "title") or "Untitled"
        html = value(item, CONTENT) or value(item, "description")
        entries.append(
            ParsedEntry(
                uid=value(item, "guid") or link or title,
                title=plain(title),
                link=link,
                author=value(item, f"{DUBLIN_CORE}creator") or value(item, "author"),
                text=paragraphs(html),
                published_at=moment(value(item, "pubDate") or value(item, f"{DUBLIN_CORE}date")),
            )
        )
    return ParsedFeed(plain(value(channel, "title")), web_address(value(channel, "link")), tuple(entries))


def parse_atom(feed):
    entries = []
    for item in feed.findall(f"{ATOM}entry"):
        body = item.find(f"{ATOM}content")
        if body is None:
            body = item.find(f"{ATOM}summary")
        link = atom_link(item)
        title = value(item, f"{ATOM}title") or "Untitled"
        entries.append(
            ParsedEntry(
                uid=value(item, f"{ATOM}id") or link or title,
                title=plain(title),
                link=link,
                author=value(item, f"{ATOM}author/{ATOM}name"),
                text="" if body is None else atom_text(body),
                published_at=moment(value(item, f"{ATOM}published") or value(item, f"{ATOM}updated")),
            )
        )
    return ParsedFeed(plain(value(feed, f"{ATOM}title")), atom_link(feed), tuple(entries))


def atom_link(element):
    for link in element.findall(f"{ATOM}link"):
        if link.get("rel", "alternate") == "alternate":
            return web_address(link.get("href", ""))
    return ""


def atom_text(body):
    kind = body.get("type", "text")
    if kind == "xhtml":
        return paragraphs(ElementTree.tostring(body, encoding="unicode").replace("html:", ""))
    text = body.text or ""
    return paragraphs(text) if kind == "html" else "\n\n".join(squeeze(part) for part in text.split("\n\n"))


def value(element, path):
    found = element.find(path)
    return "" if found is None else "".join(found.itertext()).strip()


def web_address(text):
    """Only what a browser may safely be sent to."""
    return text if text.lower().startswith(("http://", "https://")) else ""


def moment(text):
    """The date of RSS (RFC 2822) or Atom (RFC 3339), or None."""
    for read in (parsedate_to_datetime, lambda t: datetime.fromisoformat(t.replace("Z", "+00:00"))):
        try:
            found = read(text)
        except (TypeError, ValueError, IndexError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    return None


# Elements that end a paragraph.
BLOCKS = {
    *("article", "blockquote", "br", "div", "figure", "hr", "li", "ol", "p", "pre", "section", "tr", "ul"),
    *("h1", "h2", "h3", "h4", "h5", "h6"),
}
SILENT = {"script", "style", "template"}


class TextOf(HTMLParser):
    """Collects the paragraphs of a piece of HTML; everything else in it is dropped."""

    def __init__(self):
        super().__init__()
        self.parts, self.silent = [""], 0

    def handle_starttag(self, tag, attrs):
        self.silent += tag in SILENT
        if tag in BLOCKS:
            self.parts.append("")

    def handle_endtag(self, tag):
        self.silent -= tag in SILENT and self.silent > 0
        if tag in BLOCKS:
            self.parts.append("")

    def handle_data(self, data):
        if not self.silent:
            self.parts[-1] += data


def paragraphs(html):
    reader = TextOf()
    reader.feed(html)
    reader.close()
    return "\n\n".join(part for part in map(squeeze, reader.parts) if part)


def plain(html):
    return squeeze(paragraphs(html))


def squeeze(text):
    return " ".join(text.split())
