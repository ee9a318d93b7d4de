from django.contrib import admin

from .models import Album, Photo


@admin.register(Album)
class AlbumAdmin(admin.ModelAdmin):
    list_display = ("title", "created_at")
    prepopulated_fields = {"slug": ("title",)}  # noqa: RUF012


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    list_display = ("title", "album", "uploaded_at")
    list_filter = ("album",)
    readonly_fields = ("width", "height", "colour", "thumbnail", "uploaded_at")
