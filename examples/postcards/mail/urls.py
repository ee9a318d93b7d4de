from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("api/cards/", views.api_cards, name="api-cards"),
    path("healthz", views.healthz, name="healthz"),
]
