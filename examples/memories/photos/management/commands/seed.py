from io import BytesIO

from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand

from photos.models import Album, Photo
from photos.scenes import SCENES


class Command(BaseCommand):
    help = "Paint a few pictures, so that the gallery has something to show. Safe to run again."

    def handle(self, *args, **options):
        added = 0
        for scene in SCENES:
            album = Album.objects.titled(scene.album)
            if album.photos.filter(title=scene.title).exists():
                continue
            out = BytesIO()
            scene.paint().save(out, "JPEG", quality=88)
            Photo.objects.add(album, ContentFile(out.getvalue(), name="painted.jpg"), title=scene.title)
            added += 1
        self.stdout.write(self.style.SUCCESS(f"{added} pictures added, {Photo.objects.count()} in all."))
