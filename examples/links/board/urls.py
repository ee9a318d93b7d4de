from django.urls import path

from . import views

urlpatterns = [
    path("", views.LinkList.as_view(), name="top"),
    path("newest/", views.LinkList.as_view(newest=True), name="newest"),
    path("tags/<str:tag>/", views.LinkList.as_view(), name="tag"),  # not <slug>: there is c++
    path("submit/", views.SubmitView.as_view(), name="submit"),
    path("links/<int:pk>/vote/", views.vote, name="vote"),
    path("api/links/", views.api_links, name="api-links"),
    path("healthz", views.healthz, name="healthz"),
]
