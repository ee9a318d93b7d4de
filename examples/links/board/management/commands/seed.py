from datetime import timedelta

from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone
from django_q.tasks import async_task

from board import stats
from board.models import Link, Tag

# title, address, tags, votes, hours ago
LINKS = (
    ("Appropriate Uses For SQLite", "https://www.sqlite.org/whentouse.html", "databases sqlite", 41, 30),
    ("The Twelve-Factor App", "https://12factor.net/", "ops practices", 28, 52),
    (
        "Use The Index, Luke: a guide to SQL performance",
        "https://use-the-index-luke.com/",
        "databases sql",
        37,
        20,
    ),
    (
        "Parse, don’t validate",
        "https://lexi-lambda.github.io/blog/2019/11/05/parse-don-t-validate/",
        "practices haskell",
        33,
        44,
    ),
    ("Choose Boring Technology", "https://boringtechnology.club/", "practices ops", 46, 26),
    ("PEP 20: The Zen of Python", "https://peps.python.org/pep-0020/", "python", 19, 90),
    (
        "Django’s design philosophies",
        "https://docs.djangoproject.com/en/stable/misc/design-philosophies/",
        "django python",
        24,
        9,
    ),
    (
        "PostgreSQL: Don’t Do This",
        "https://wiki.postgresql.org/wiki/Don't_Do_This",
        "databases postgres",
        31,
        5,
    ),
    ("The Grug Brained Developer", "https://grugbrain.dev/", "practices fun", 39, 70),
    ("Web Design in 4 minutes", "https://jgthms.com/web-design-in-4-minutes/", "web css", 22, 61),
    (
        "Teach Yourself Programming in Ten Years",
        "https://norvig.com/21-days.html",
        "practices essays",
        27,
        120,
    ),
    (
        "Redis data types, explained by its authors",
        "https://redis.io/docs/latest/develop/data-types/",
        "redis databases",
        14,
        3,
    ),
    (
        "What happens when you type an address into a browser",
        "https://github.com/alex/what-happens-when",
        "web networks",
        18,
        33,
    ),
    (
        "A visual introduction to typography on the web",
        "https://practicaltypography.com/",
        "web design",
        16,
        14,
    ),
    (
        "How to report bugs effectively",
        "https://www.chiark.greenend.org.uk/~sgtatham/bugs.html",
        "practices essays",
        12,
        2,
    ),
)


class Command(BaseCommand):
    help = "Share some links worth reading. Safe to run again."

    @transaction.atomic
    def handle(self, *args, **options):
        added = []
        for title, url, tags, votes, hours in LINKS:
            submitted_at = timezone.now() - timedelta(hours=hours)
            link, new = Link.objects.get_or_create(url=url, defaults={"title": title, "submitted_at": submitted_at})
            if not new:
                continue
            link.tags.set(Tag.objects.get_or_create(name=name)[0] for name in tags.split())
            for number in range(votes):
                link.toggle_vote(f"seed-{number}")
            added.append(link.pk)
        for pk in added:
            async_task("board.tasks.relate", pk)
        transaction.on_commit(stats.forget)
        self.stdout.write(self.style.SUCCESS(f"{len(added)} links added, {Link.objects.count()} in all."))
