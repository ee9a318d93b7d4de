from pathlib import Path

from PIL import Image

from photos.models import Album, title_from

from .pictures import MediaTestCase, picture


class AlbumTests(MediaTestCase):
    def test_the_same_title_is_the_same_album(self):
        album = Album.objects.titled("Summer  by the sea")
        self.assertEqual(Album.objects.titled("summer by the SEA"), album)
        self.assertEqual(album.slug, "summer-by-the-sea")

    def test_slugs_are_unique(self):
        slugs = [Album.objects.titled(title).slug for title in ("Été!", "Été?", "日本")]
        self.assertEqual(slugs, ["ete", "ete-2", "album"])


class PhotoTests(MediaTestCase):
    def test_thumbnail_is_made_and_small(self):
        photo = self.add(Album.objects.titled("A"), picture(size=(2400, 1600)))
        self.assertEqual((photo.width, photo.height, photo.ratio), (2400, 1600, "1.5000"))
        with Image.open(photo.thumbnail.path) as small:
            self.assertEqual((small.format, small.size), ("JPEG", (800, 533)))
        self.assertTrue(photo.colour.startswith("#c"))

    def test_camera_rotation_is_respected(self):
        photo = self.add(Album.objects.titled("A"), picture(size=(1200, 800), orientation=6))
        self.assertEqual((photo.width, photo.height), (800, 1200))

    def test_files_are_stored_under_our_own_names(self):
        photo = self.add(Album.objects.titled("A"), picture("evil.html", kind="PNG"))
        self.assertEqual(Path(photo.image.name).suffix, ".png")
        self.assertNotIn("evil", photo.image.name)
        self.assertTrue(Path(photo.image.path).is_relative_to(self.media))

    def test_title_from_file_name(self):
        self.assertEqual(title_from("first_day-at school.JPG"), "First day at school")
        self.assertEqual(title_from(""), "Untitled")
