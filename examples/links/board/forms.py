from django import forms
from django.core.exceptions import ValidationError

from .models import Link, Tag

MAX_TAGS = 4


class LinkForm(forms.ModelForm):
    url = forms.URLField(
        label="Address",
        max_length=500,
        assume_scheme="https",
        widget=forms.URLInput(attrs={"placeholder": "https://", "autofocus": True}),
        error_messages={"unique": "Somebody has shared this already."},
    )
    tags = forms.CharField(
        max_length=120,
        help_text=f"One to {MAX_TAGS} words, separated by commas or spaces.",
        widget=forms.TextInput(attrs={"placeholder": "python, databases"}),
    )

    class Meta:
        model = Link
        fields = ("url", "title", "tags")
        widgets = {  # noqa: RUF012
            "title": forms.TextInput(attrs={"placeholder": "As its author put it"}),
        }

    def clean_title(self):
        return " ".join(self.cleaned_data["title"].split())

    def clean_tags(self):
        names = list(dict.fromkeys(self.cleaned_data["tags"].lower().replace(",", " ").split()))
        if not names:
            raise ValidationError("At least one tag, please.")
        if len(names) > MAX_TAGS:
            raise ValidationError(f"At most {MAX_TAGS} tags, please.")
        for name in names:
            Tag._meta.get_field("name").clean(name, None)
        return names

    def save(self, commit=True):
        names = self.cleaned_data.pop("tags")
        link = super().save(commit)
        link.tags.set(Tag.objects.get_or_create(name=name)[0] for name in names)
        return link
