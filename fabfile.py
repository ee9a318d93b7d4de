from deploykit.tasks import *  # noqa: F403
