"""The cards as HTML. Everybody sees the same ones, so they are rendered once and kept in the cache."""

from django.core.cache import cache
from django.template.loader import render_to_string

from .models import Card

KEY, SECONDS, CARDS = "wall", 60, 60


def html():
    return cache.get_or_set(KEY, render, SECONDS)


def forget():
    cache.delete(KEY)


def render():
    return "".join(map(one, Card.objects.all()[:CARDS]))


def one(card):
    return render_to_string("mail/card.html", {"card": card})
