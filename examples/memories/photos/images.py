"""What happens to a picture: measured on its way in, made small afterwards."""

from io import BytesIO

from django.core.files.base import ContentFile
from PIL import Image, ImageOps

# Pillow's name for each format we take, and the ending its files get. The ending of the uploaded
# file is not trusted: it decides what type a web server gives the file.
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
THUMBNAIL_SIZE = (800, 800)
ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side


def measure(file):
    """(width, height, ending) of a picture, from its first bytes; `file` is left at its start."""
    file.seek(0)
    with Image.open(file) as image:
        width, height = image.size
        if image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        ending = FORMATS[image.format]
    file.seek(0)
    return width, height, ending


def shrink(file):
    """(colour, thumbnail) of a picture: its average as #rrggbb, and a small JPEG."""
    with Image.open(file) as original:
        image = ImageOps.exif_transpose(original).convert("RGB")
    colour = "#{:02x}{:02x}{:02x}".format(*image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)))
    image.thumbnail(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True, progressive=True)
    return colour, ContentFile(out.getvalue())
