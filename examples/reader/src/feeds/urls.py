from django.urls import path

from . import views

urlpatterns = [
    path("", views.entries, name="entries"),
    path("unread/", views.entries, {"unread": True}, name="unread"),
    path("feeds/<int:feed>/", views.entries, name="feed"),
    path("entries/<int:pk>/", views.entry, name="entry"),
    path("entries/<int:pk>/read/", views.toggle_read, name="toggle-read"),
    path("fetch/", views.fetch_now, name="fetch-now"),
    path("healthz", views.healthz, name="healthz"),
]
