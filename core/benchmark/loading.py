"""One thread at a time: loading a task touches lm-eval's module state, and transformers' lazy modules do not stand two first imports."""

from __future__ import annotations

import threading

LOADING = threading.Lock()
