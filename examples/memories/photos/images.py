"""What happens to a picture on its way in."""

from dataclasses import dataclass
from io import BytesIO

from django.core.files.base import ContentFile
from PIL import Image, ImageOps

# Pillow's name for each format we take, and the ending its files get. The ending of the uploaded
# file is not trusted: it decides what type a web server gives the file.
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
THUMBNAIL_SIZE = (800, 800)


@dataclass(frozen=True)
class Preview:
    width: int
    height: int
    extension: str
    colour: str
    thumbnail: ContentFile


def preview(file):
    """Measure a picture and make its thumbnail; `file` is left at its start."""
    file.seek(0)
    with Image.open(file) as original:
        extension = FORMATS[original.format]
        image = ImageOps.exif_transpose(original).convert("RGB")
    file.seek(0)
    width, height = image.size
    colour = "#{:02x}{:02x}{:02x}".format(*image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)))
    image.thumbnail(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True, progressive=True)
    return Preview(width, height, extension, colour, ContentFile(out.getvalue()))
