"""The agent's entry: one request on standard input, events on standard output."""

from deploykit.agent import meanwhile

meanwhile.begin()

from deploykit.agent.serve import main  # noqa: E402 (most of what there is to load comes with it)

main()
