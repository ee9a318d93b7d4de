from urllib.parse import urlsplit

from django.core.validators import RegexValidator, URLValidator
from django.db import IntegrityError, models, transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone


class Tag(models.Model):
    name = models.CharField(
        max_length=24,
        unique=True,
        validators=[RegexValidator(r"^[a-z0-9][a-z0-9+-]*$", "Tags are lowercase words.")],
    )

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("tag", args=[self.name])

    @property
    def hue(self):
        """Every tag keeps its own colour, in degrees."""
        return sum(ord(letter) * 47 for letter in self.name) % 360


class Link(models.Model):
    title = models.CharField(max_length=140)
    url = models.URLField("address", max_length=500, unique=True, validators=[URLValidator(["http", "https"])])
    tags = models.ManyToManyField(Tag, related_name="links")
    related = models.ManyToManyField("self", symmetrical=False, blank=True, editable=False)
    score = models.PositiveIntegerField(default=0, editable=False)
    submitted_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-score", "-submitted_at", "-pk")
        indexes = (
            models.Index(fields=["-score", "-submitted_at"], name="link_by_score"),
            models.Index(fields=["-submitted_at"], name="link_by_age"),
        )

    def __str__(self):
        return self.title

    @property
    def site(self):
        return urlsplit(self.url).netloc.removeprefix("www.")

    def toggle_vote(self, voter):
        """Vote, or take the vote back; answers whether the voter now stands behind the link."""
        with transaction.atomic():
            taken_back, _ = self.votes.filter(voter=voter).delete()
            if taken_back:
                Link.objects.filter(pk=self.pk).update(score=F("score") - 1)
                return False
            try:
                with transaction.atomic():
                    self.votes.create(voter=voter)
            except IntegrityError:
                return True  # the same browser, twice at once: the other request has counted it
            Link.objects.filter(pk=self.pk).update(score=F("score") + 1)
            return True


class Vote(models.Model):
    link = models.ForeignKey(Link, on_delete=models.CASCADE, related_name="votes")
    voter = models.CharField(max_length=40, help_text="The key of the voter's session.")
    cast_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["link", "voter"], name="one_vote_per_session"),)

    def __str__(self):
        return f"{self.link} by {self.voter[:6]}"
