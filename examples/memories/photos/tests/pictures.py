"""Pictures for the tests, and a folder for them that goes away afterwards."""

import tempfile
from io import BytesIO

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase, override_settings
from PIL import Image

from photos.models import Photo


def picture(name="beach_day.jpg", size=(1200, 800), colour="#cc8844", kind="JPEG", orientation=None):
    image = Image.new("RGB", size, colour)
    exif = image.getexif()
    if orientation:
        exif[0x0112] = orientation
    out = BytesIO()
    image.save(out, kind, **({"exif": exif} if orientation else {}))
    return SimpleUploadedFile(name, out.getvalue(), content_type="image/jpeg")


class MediaTestCase(TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.media = folder.name
        settings = override_settings(MEDIA_ROOT=folder.name)
        settings.enable()
        self.addCleanup(settings.disable)

    def add(self, album, file):
        """A photo with its thumbnail, as it is once the transaction is over."""
        with self.captureOnCommitCallbacks(execute=True):
            photo = Photo.objects.add(album, file)
        photo.refresh_from_db()
        return photo
