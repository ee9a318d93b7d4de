"""What a good server looks like: one module per thing, each with a `recipe(host, facts, render)`.

A recipe is a function from configuration to resources: no I/O, nothing but the standard library and
`deploykit.agent`, for it travels to the host. The order in which it yields is the order in which things are made.
"""

from __future__ import annotations

#: The recipes of every host, in the order in which they are made.
ORDER: tuple[str, ...] = (
    *("base", "ssh", "python", "postgres", "redis", "memcached", "rabbitmq", "ports"),
    *("supervisor", "nginx", "schedule", "app"),
)

#: Modules with a program that takes longer to start than to answer: their `begin()` starts it with the agent.
EARLY: tuple[str, ...] = ("psql",)
