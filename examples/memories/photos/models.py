import uuid
from pathlib import PurePath

from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from .images import measure, shrink


class AlbumQuerySet(models.QuerySet):
    def titled(self, title):
        """The album of this title, made when there is none."""
        title = " ".join(title.split())
        found = self.filter(title__iexact=title).first()
        if found:
            return found
        base = slugify(title)[:80] or "album"
        slug, number = base, 2
        while self.filter(slug=slug).exists():
            slug, number = f"{base}-{number}", number + 1
        return self.create(title=title, slug=slug)


class Album(models.Model):
    title = models.CharField(max_length=100)
    slug = models.SlugField(max_length=100, unique=True)
    description = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = AlbumQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("album", args=[self.slug])


class PhotoQuerySet(models.QuerySet):
    def add(self, album, file, title=""):
        """Store a picture; its thumbnail follows. The title comes from the file's name unless given."""
        from .tasks import make_thumbnail

        width, height, ending = measure(file)
        photo = self.model(
            album=album,
            title=(title or title_from(file.name))[:120],
            width=width,
            height=height,
        )
        photo.image.save(f"{timezone.now():%Y/%m}/{uuid.uuid4().hex}.{ending}", file, save=False)
        photo.save()
        # `robust`: a broker that is down must not spoil the upload; what was missed is caught up with later.
        transaction.on_commit(lambda: make_thumbnail.delay(photo.pk), robust=True)
        return photo


def title_from(filename):
    words = PurePath(filename or "").stem.replace("_", " ").replace("-", " ").split()
    return " ".join(words).capitalize() or "Untitled"


def original_path(photo, name):
    return f"photos/{name}"


def thumbnail_path(photo, name):
    return f"thumbnails/{name}"


class Photo(models.Model):
    album = models.ForeignKey(Album, on_delete=models.CASCADE, related_name="photos")
    title = models.CharField(max_length=120)
    image = models.ImageField(upload_to=original_path)
    thumbnail = models.ImageField(upload_to=thumbnail_path, blank=True, help_text="Made by the worker.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    colour = models.CharField(max_length=7, default="#808080", help_text="Shown until the picture is there.")
    uploaded_at = models.DateTimeField(default=timezone.now, db_index=True)

    objects = PhotoQuerySet.as_manager()

    class Meta:
        ordering = ("-uploaded_at", "-pk")

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("photo", args=[self.pk])

    def make_thumbnail(self):
        """Make the picture small, in place of what may be there already."""
        before = self.thumbnail.name
        with self.image.open("rb") as file:
            self.colour, small = shrink(file)
        folders = PurePath(self.image.name).parts[1:]
        self.thumbnail.save(str(PurePath(*folders).with_suffix(".jpg")), small, save=False)
        self.save(update_fields=["colour", "thumbnail"])
        if before:
            self.thumbnail.storage.delete(before)

    @property
    def ratio(self):
        """Width by height, as CSS wants to read it."""
        return f"{self.width / self.height:.4f}"


class Moment(models.Model):
    """A photo that was brought back to mind."""

    photo = models.ForeignKey(Photo, on_delete=models.CASCADE)
    chosen_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-chosen_at", "-pk")

    def __str__(self):
        return f"{self.photo} at {self.chosen_at:%H:%M:%S}"
