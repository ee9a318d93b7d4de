# Django's processes must know the Celery application, or tasks would go to a default one.
from .celery import app as celery_app

__all__ = ["celery_app"]
