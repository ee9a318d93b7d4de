"""For all tests."""

from __future__ import annotations

import signal

# Who runs the tests in the background of a shell may have Ctrl-C ignored, and programs inherit that: those under test
# are ended by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
