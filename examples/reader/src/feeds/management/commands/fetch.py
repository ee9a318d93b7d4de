from django.core.management.base import BaseCommand, CommandError

from feeds.fetching import SAMPLES, fetch, subscribe
from feeds.models import Feed


class Command(BaseCommand):
    help = "Fetch the feeds named, or all; the very first time, the two that come with the reader."

    def add_arguments(self, parser):
        parser.add_argument(
            "sources", nargs="*", metavar="SOURCE", help="an http(s) address or a file's path"
        )

    def handle(self, *args, sources, **options):
        if sources or not Feed.objects.exists():
            feeds = [subscribe(source) for source in sources or SAMPLES]
        else:
            feeds = list(Feed.objects.all())
        failed = 0
        for feed in feeds:
            added = fetch(feed)
            if feed.problem:
                failed += 1
                self.stderr.write(self.style.ERROR(f"{feed}: {feed.problem}"))
            else:
                self.stdout.write(f"{feed}: {added} new")
        if failed == len(feeds):
            raise CommandError("No feed could be fetched.")
