from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BoardConfig(AppConfig):
    name = "board"
    verbose_name = "Link board"

    def ready(self):
        post_migrate.connect(schedule, sender=self)


def schedule(using, **kwargs):
    """What is done again and again stands in the database, where one may change it."""
    from django_q.models import Schedule

    Schedule.objects.using(using).get_or_create(
        name="count everything",
        defaults={"func": "board.tasks.count", "schedule_type": Schedule.MINUTES, "minutes": 1},
    )
