"""One thread at a time: a task's loading touches lm-eval's module state, and transformers' lazy modules stand one first import."""

from __future__ import annotations

import threading

LOADING = threading.Lock()
