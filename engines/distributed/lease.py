"""Who uses a service, and when it has been unused for long enough. Pure; the clock is the caller's."""

from __future__ import annotations

from dataclasses import dataclass, field

LEASE_SECONDS = 60.0  # a client not heard of for so long is gone
RENEW_SECONDS = 10.0


@dataclass
class Leases:
    """Clients by id with the time they were last heard of, in seconds. Not thread-safe.

    ``idle_seconds`` is how long the service outlives its last client: the wish of whoever was heard of last.
    """

    idle_seconds: float
    unused_since: float
    heard: dict[str, float] = field(default_factory=dict)

    def renew(self, client: str, idle_seconds: float, now: float) -> None:
        """Note that ``client`` is there."""
        self.heard[client] = now
        self.idle_seconds = idle_seconds

    def drop(self, client: str, idle_seconds: float, now: float) -> None:
        """Note that ``client`` has left."""
        self.idle_seconds = idle_seconds
        if self.heard.pop(client, None) is not None:
            self.unused_since = now

    def is_over(self, now: float) -> bool:
        """Forget clients that went silent; whether the service has outlived its last client by its idle time."""
        for client, heard in list(self.heard.items()):
            if now - heard > LEASE_SECONDS:
                del self.heard[client]
                self.unused_since = now
        return not self.heard and now - self.unused_since >= self.idle_seconds
