"""What an app's caches and brokers are called by: the parts of each for `${NAME.part}`, and the variables."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.agent.resource import Joined
from deploykit.agent.values import App, Service, Value
from deploykit.recipes import memcached, rabbitmq, redis

_KINDS = {"redis": "Redis", "memcached": "Memcached", "rabbitmq": "RabbitMQ"}


def references(app: App) -> dict[str, Value]:
    """Every part of every cache and broker, as `config.references.SERVICES` lists them."""
    found: dict[str, Value] = {}
    for store in app.stores:
        found |= {f"{store.name}.{part}": value for part, value in _PARTS[store.kind](app, store).items()}
    return found


def environment(app: App, names: Mapping[str, Value]) -> dict[str, Value]:
    """NAME_URL of each, and what Celery's settings call the broker.

    The `celery` command reads BROKER_URL, too, and it wins over the settings: so that is in Celery's form.
    """
    found = {f"{store.name.upper()}_URL": names[f"{store.name}.url"] for store in app.stores}
    if "broker.celery" in names:
        found |= {"CELERY_BROKER_URL": names["broker.celery"], "BROKER_URL": names["broker.celery"]}
    return found


def called(app: App, store: Service) -> str:
    """A cache or broker in words."""
    kind = _KINDS[store.kind]
    return f"{kind} of {app.name}" if store.name == "redis" else f"{kind} ({store.name}) of {app.name}"


def _redis(app: App, store: Service) -> dict[str, Value]:
    """redis-py, django-redis and channels_redis take one form of a socket's URL, Celery (kombu) another."""
    socket = redis.socket(app, store)
    if not store.port:
        return {
            "url": f"unix://{socket}?db=0",
            "celery": f"redis+socket://{socket}?virtual_host=0",
            "socket": socket,
        }
    password = redis.password(store)
    url = Joined(("redis://:", password, f"@127.0.0.1:{store.port}/0"))
    found: dict[str, Value] = {"url": url, "celery": url, "socket": socket}
    return found | {"host": "127.0.0.1", "port": str(store.port), "password": password}


def _memcached(app: App, store: Service) -> dict[str, Value]:
    """`pymemcache` is what URLs call Django's PyMemcacheCache: its own parsers, django-environ's too."""
    if store.port:
        address = f"127.0.0.1:{store.port}"
        return {
            "url": f"pymemcache://{address}",
            "location": address,
            "host": "127.0.0.1",
            "port": str(store.port),
        }
    socket = memcached.socket(app, store)
    return {"url": f"pymemcache://{socket}", "location": f"unix:{socket}", "socket": socket}


def _rabbitmq(app: App, store: Service) -> dict[str, Value]:
    """One server, and in it a user and a vhost of the app's name."""
    url = Joined(
        (f"amqp://{app.user}:", rabbitmq.PASSWORD, f"@{rabbitmq.ADDRESS}:{rabbitmq.PORT}/{rabbitmq.vhost(app)}")
    )
    return {
        "url": url,
        "celery": url,
        "host": rabbitmq.ADDRESS,
        "port": str(rabbitmq.PORT),
        "user": app.user,
        "password": rabbitmq.PASSWORD,
        "vhost": rabbitmq.vhost(app),
    }


_PARTS = {"redis": _redis, "memcached": _memcached, "rabbitmq": _rabbitmq}
