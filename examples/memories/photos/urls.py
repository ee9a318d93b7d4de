from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("albums/<slug:slug>/", views.album, name="album"),
    path("photos/<int:pk>/", views.photo, name="photo"),
    path("upload/", views.upload, name="upload"),
    path("api/photos/", views.api_photos, name="api-photos"),
    path("healthz", views.healthz, name="healthz"),
]
