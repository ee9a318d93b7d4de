from django import forms
from django.core.exceptions import ValidationError
from django.template.defaultfilters import filesizeformat

from .images import FORMATS
from .models import Album

MAX_FILE_BYTES = 20 * 1024 * 1024
MAX_FILES = 30


class ManyFilesInput(forms.FileInput):
    allow_multiple_selected = True


class ManyImagesField(forms.ImageField):
    """An ImageField that takes several files and cleans to a list of them."""

    widget = ManyFilesInput

    def clean(self, data, initial=None):
        files = [file for file in (data or []) if file]
        if not files:
            return [super().clean(None, initial)]  # raises "required"
        if len(files) > MAX_FILES:
            raise ValidationError(f"At most {MAX_FILES} pictures at a time, please.")
        return [self.clean_one(file) for file in files]

    def clean_one(self, file):
        if file.size > MAX_FILE_BYTES:
            raise ValidationError(f"{file.name} is larger than {filesizeformat(MAX_FILE_BYTES)}.")
        try:
            cleaned = super().clean(file)
        except ValidationError as exc:
            raise ValidationError(f"{file.name} is not a picture we can read.") from exc
        if cleaned.image.format not in FORMATS:
            raise ValidationError(f"{file.name} is not a JPEG, PNG or WebP picture.")
        return cleaned


class UploadForm(forms.Form):
    album = forms.ModelChoiceField(Album.objects.all(), required=False, empty_label="A new album…")
    new_album = forms.CharField(max_length=100, required=False, label="Title of the new album")
    images = ManyImagesField(label="Pictures")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["new_album"].widget.attrs["placeholder"] = "Grandma's eightieth"
        self.fields["images"].widget.attrs["accept"] = "image/jpeg,image/png,image/webp"

    def clean(self):
        cleaned = super().clean()
        if not cleaned.get("album") and not cleaned.get("new_album", "").strip():
            self.add_error("new_album", "Choose an album, or give a new one a title.")
        return cleaned
