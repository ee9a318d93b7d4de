from datetime import timedelta

from django.core.management.base import BaseCommand
from django.utils import timezone

from mail import wall
from mail.jobs import later, stamp
from mail.models import Card

# from, place, hours ago, message
CARDS = (
    ("Ida", "Reine", 190, "The ferry was late, the harbour was not. Fish for breakfast and for supper. And the light!"),
    ("Tomasz", "Zakopane", 150, "Three hours up to the hut in snow. Soup never tasted like this. My knees say hello."),
    ("Nour", "Granada", 121, "Too hot to think before six in the evening. Then everybody is on the street, me too."),
    ("Annika", "Saimaa", 98, "The lake is so still that the birds land on the forest by mistake."),
    ("Jules", "Nantes", 77, "I missed the night train and saw the museum instead. Recommended, both."),
    ("Marta & Ines", "Sagres", 51, "We found the end of the world. There is a kiosk. The sea is louder than Ines."),
    ("Kwame", "Lake Bosumtwi", 30, "Grandmother says the river knows the way. We followed the map and got lost."),
    ("Yuki", "Takayama", 12, "Morning market, persimmons, an old man who sells only brooms. I bought one. Sorry."),
    ("Fergus", "Ullapool", 3, "Rain, sun, rain, a rainbow, rain. The boat goes anyway. Wish you were here, and dry."),
)


class Command(BaseCommand):
    help = "Put up a few cards that came before. Safe to run again."

    def handle(self, *args, **options):
        added = 0
        for name, place, hours, text in CARDS:
            sent_at = timezone.now() - timedelta(hours=hours)
            card, new = Card.objects.get_or_create(name=name, place=place, defaults={"text": text, "sent_at": sent_at})
            if new:
                later(stamp, card.pk)
                added += 1
        wall.forget()
        self.stdout.write(self.style.SUCCESS(f"{added} cards added, {Card.objects.count()} in all."))
