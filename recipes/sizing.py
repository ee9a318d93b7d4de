"""Who gets how much of a host's memory. Pure arithmetic; all figures in MiB.

Two wishes rule it. What one app gets must not depend on how many others there are, as far as memory lasts: else adding
an app would restart the others, or PostgreSQL. And a figure must not waver with the few MiB that a kernel update takes:
so sizes follow the machine's size as it is sold, the smallest of `_SOLD` that the memory fits in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from deploykit.agent.dataclass import dataclass
from deploykit.agent.values import App, Facts, Service

_SOLD = (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304, 131072)

#: What the system takes before any app: kernel, systemd, journal, sshd, nginx (8 MiB), supervisor (30 MiB).
SYSTEM = 170
#: One gunicorn worker with a common Django project loaded, and its connections' processes in PostgreSQL.
WORKER = 90
#: gunicorn's master, which loads no app; one per app.
MASTER = 25
#: Redis and Memcached themselves, empty.
STORE = {"redis": 8, "memcached": 5}
#: Connections to PostgreSQL: of a worker that answers by ASGI; of a process such as a Celery worker, with its children;
#: for commands by hand; and those that no app gets, beside PostgreSQL's own reserve for the superuser.
_PER_ASGI_WORKER, _PER_PROCESS, _BY_HAND, _RESERVED = 20, 10, 10, 20
#: RabbitMQ with the Erlang it runs in, its queues nearly empty; one for all apps.
RABBITMQ = 120


@dataclass(frozen=True)
class Postgres:
    """PostgreSQL's memory settings, and how many connections it takes."""

    shared_buffers: int
    effective_cache_size: int
    work_mem: int
    maintenance_work_mem: int
    max_connections: int


@dataclass(frozen=True)
class Sizes:
    """Each app's share. `workers` and `connections` (to PostgreSQL, at most) are by the app's name, `stores` (Redis,
    Memcached) by the app's and its own.

    `rabbitmq` is where RabbitMQ lets senders wait; `needed` is the sum at the busiest moment.
    """

    postgres: Postgres
    stores: dict[tuple[str, str], int] = field(default_factory=dict)
    rabbitmq: int = 0
    workers: dict[str, int] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    needed: int = 0
    warnings: tuple[str, ...] = ()


def sizes(facts: Facts, apps: Sequence[App]) -> Sizes:
    """Shares the host's memory among its apps; what the user has set stays as set. Warnings are sentences."""
    memory = next((size for size in _SOLD if facts.memory <= size), facts.memory)
    database = _postgres(memory)
    every = [(app.name, store) for app in apps for store in app.stores]
    stores = {(app, store.name): _store(memory, store) for app, store in every if store.kind in STORE}

    fixed = SYSTEM + len(apps) * MASTER + sum(stores.values()) + sum(STORE.get(store.kind, 0) for _, store in every)
    if any(store.kind == "rabbitmq" for _, store in every):
        fixed += RABBITMQ
    if any(app.database.kind == "postgres" for app in apps):
        fixed += database.shared_buffers + 30

    wished = _wished(memory, facts.processors)
    fitting = next((each for each in range(wished, 1, -1) if fixed + _workers(apps, each) <= memory), 1)
    workers = {app.name: app.web.workers or fitting for app in apps}
    needed = fixed + _workers(apps, fitting)
    warnings = tuple(_warnings(facts, apps, memory, needed, wished, fitting))
    limits = {app.name: _connections(app, workers[app.name], database.max_connections) for app in apps}
    return Sizes(database, stores, max(RABBITMQ + 40, memory // 8), workers, limits, needed, warnings)


def _connections(app: App, workers: int, most: int) -> int:
    """How many connections an app may have to PostgreSQL: twice what it can need, for both its slots work in a deploy.

    Some are left to the superuser and to the other apps, whatever one app does. By ASGI each request has a thread, and
    with it a connection, of its own (asgiref's ThreadSensitiveContext).
    """
    if app.database.connections:
        return app.database.connections
    need = sum(
        count * (_PER_ASGI_WORKER if web.interface == "asgi" else max(1, web.threads))
        for web, count in [(app.web, workers), *((each.web, each.web.workers) for each in app.processes if each.web)]
    )
    need += sum(each.count * _PER_PROCESS for each in app.processes if not each.web) + len(app.schedule)
    return min(2 * need + _BY_HAND, most - _RESERVED)


def _store(memory: int, store: Service) -> int:
    """A broker that is full refuses what it is sent, a cache only forgets: so a broker gets twice as much."""
    return store.memory or (_between(32, memory // 32, 512) if store.persistent else _between(16, memory // 64, 256))


def _postgres(memory: int) -> Postgres:
    """Half of what a machine of PostgreSQL's own would get (its manual says 25 % of the memory): apps live here too."""
    return Postgres(
        shared_buffers=_between(32, memory // 8, 4096),
        effective_cache_size=memory // 2,
        work_mem=4 if memory < 4096 else 8 if memory < 16384 else 16,
        maintenance_work_mem=_between(16, memory // 32, 512),
        max_connections=100 if memory < 2048 else 200 if memory < 8192 else 300,
    )


def _wished(memory: int, processors: int) -> int:
    """Workers of an app with room to spare: 2 * processors + 1 is gunicorn's own advice, less on small machines."""
    room = 1 if memory <= 512 else 2 if memory <= 2048 else 3 if memory <= 8192 else 4
    return min(2 * processors + 1, room)


def _workers(apps: Sequence[App], default: int) -> int:
    """What all workers take while the largest app runs twice, as it does for seconds in each deploy."""
    each = [(app.web.workers or default) * WORKER + _beside(app) for app in apps]
    return sum(each) + max(each, default=0)


def _beside(app: App) -> int:
    """What an app's further processes take: each has the project loaded, as a web worker has."""
    return sum(each.web.workers * WORKER + MASTER if each.web else each.count * WORKER for each in app.processes)


def _warnings(facts: Facts, apps: Sequence[App], memory: int, needed: int, wished: int, fitting: int) -> list[str]:
    found: list[str] = []
    count = f"{len(apps)} app{'s' if len(apps) != 1 else ''}"
    if needed > memory:
        found.append(
            f"{count} may need {needed} MiB and the host has {facts.memory}: it may swap or kill processes. "
            "Give it more memory, or move apps to another host."
        )
    elif fitting < wished:
        found.append(
            f"{count} share {facts.memory} MiB, so each gets {fitting} web worker{'s' if fitting != 1 else ''} "
            f"instead of {wished}; more memory, or `workers` under [apps.NAME.web], changes that."
        )
    database = _postgres(memory)
    held = sum(
        (app.web.workers or fitting) * max(1, app.web.threads) for app in apps if app.database.kind == "postgres"
    )
    if held > database.max_connections - 10:
        found.append(
            f"the web processes of all apps may hold {held} connections to PostgreSQL, which takes "
            f"{database.max_connections}: lower `workers` or `threads`."
        )
    return found


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
