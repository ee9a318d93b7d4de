from django.db import models
from django.urls import reverse
from django.utils import timezone


class Feed(models.Model):
    source = models.CharField(max_length=500, unique=True, help_text="An address, or the path of a file.")
    title = models.CharField(max_length=200)
    site = models.URLField(max_length=500, blank=True)
    etag = models.CharField(max_length=200, blank=True)
    last_modified = models.CharField(max_length=60, blank=True)
    fetched_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ("title",)

    def __str__(self):
        return self.title or self.source

    def get_absolute_url(self):
        return reverse("feed", args=[self.pk])


class Entry(models.Model):
    feed = models.ForeignKey(Feed, on_delete=models.CASCADE, related_name="entries")
    uid = models.CharField(max_length=500)
    title = models.CharField(max_length=300)
    link = models.URLField(max_length=1000, blank=True)
    author = models.CharField(max_length=120, blank=True)
    text = models.TextField(blank=True, help_text="Paragraphs of plain text.")
    published_at = models.DateTimeField(default=timezone.now)
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-published_at", "-pk")
        verbose_name_plural = "entries"
        constraints = (models.UniqueConstraint(fields=["feed", "uid"], name="one_entry_per_uid"),)
        indexes = (models.Index(fields=["-published_at"], name="entry_by_age"),)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("entry", args=[self.pk])

    @property
    def minutes(self):
        """How long it takes to read, at 220 words a minute."""
        return max(1, round(len(self.text.split()) / 220))

    def toggle_read(self):
        self.read_at = None if self.read_at else timezone.now()
        self.save(update_fields=["read_at"])
