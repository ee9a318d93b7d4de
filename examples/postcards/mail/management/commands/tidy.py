from datetime import timedelta

from django.core.management.base import BaseCommand
from django.utils import timezone

from mail import wall
from mail.models import Card


class Command(BaseCommand):
    help = "Take down what is older than a year."

    def handle(self, *args, **options):
        removed, _ = Card.objects.filter(sent_at__lt=timezone.now() - timedelta(days=365)).delete()
        wall.forget()
        self.stdout.write(f"{removed} cards taken down, {Card.objects.count()} stay.")
