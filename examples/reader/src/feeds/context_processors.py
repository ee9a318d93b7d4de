from django.conf import settings


def reader(request):
    return {"app_version": settings.APP_VERSION}
