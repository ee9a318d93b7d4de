from django.db import models
from django.utils import timezone


class Card(models.Model):
    name = models.CharField("from", max_length=40)
    place = models.CharField(max_length=60)
    text = models.TextField("message", max_length=280)
    sent_at = models.DateTimeField(default=timezone.now, db_index=True)
    words = models.PositiveIntegerField(null=True, editable=False)
    motif = models.CharField(max_length=12, blank=True, editable=False)
    hue = models.PositiveSmallIntegerField(default=0, editable=False)

    class Meta:
        ordering = ("-sent_at", "-pk")

    def __str__(self):
        return f"{self.name}, {self.place}"
