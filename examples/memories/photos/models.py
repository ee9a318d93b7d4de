import uuid
from pathlib import PurePath

from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from .images import preview


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
        """Store a picture and its thumbnail; the title comes from the file's name unless given."""
        made = preview(file)
        name = f"{timezone.now():%Y/%m}/{uuid.uuid4().hex}"
        photo = self.model(
            album=album,
            title=(title or title_from(file.name))[:120],
            width=made.width,
            height=made.height,
            colour=made.colour,
        )
        photo.image.save(f"{name}.{made.extension}", file, save=False)
        photo.thumbnail.save(f"{name}.jpg", made.thumbnail, save=False)
        photo.save()
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
    thumbnail = models.ImageField(upload_to=thumbnail_path)
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

    @property
    def ratio(self):
        """Width by height, as CSS wants to read it."""
        return f"{self.width / self.height:.4f}"
