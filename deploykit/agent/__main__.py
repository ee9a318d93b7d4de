"""The agent's entry: one request on standard input, events on standard output."""

import gc

# Nearly everything that a look makes, it needs to the end: to look for garbage among that took a tenth of its time.
gc.set_threshold(100_000, 20, 20)

from deploykit.agent import meanwhile  # noqa: E402 (what it loads counts, too)

meanwhile.begin()

from deploykit.agent.serve import main  # noqa: E402 (most of what there is to load comes with it)

main()
