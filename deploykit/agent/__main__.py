"""The agent's entry: one request on standard input, events on standard output."""

from deploykit.agent.serve import main

main()
