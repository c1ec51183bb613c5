"""Completions within one process."""

from __future__ import annotations

import threading
import uuid
from collections import deque

from portal.services.ports import Completion, Message


class QueueInbox:
    """Inbox in memory: what is lost with the process is found again by the sweeper, which looks at the blob
    store.

    A message that is received and not acknowledged comes again after the others.
    """

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._handed_out: dict[str, Message] = {}

    def put(self, completion: Completion) -> None:
        """Leave a message (the fleet's side)."""
        with self._arrived:
            self._waiting.append(Message(uuid.uuid4().hex, completion))
            self._arrived.notify_all()

    def receive(self, timeout: float) -> list[Message]:
        """See Inbox."""
        with self._arrived:
            self._arrived.wait_for(lambda: bool(self._waiting), timeout)
            found = list(self._waiting)
            self._waiting.clear()
            self._handed_out.update({message.receipt: message for message in found})
            return found

    def ack(self, receipt: str) -> None:
        """See Inbox."""
        with self._arrived:
            self._handed_out.pop(receipt, None)

    def return_unacknowledged(self) -> None:
        """Put what was handed out and not acknowledged back in the queue (what a queue's visibility timeout
        does).
        """
        with self._arrived:
            self._waiting.extend(self._handed_out.values())
            self._handed_out.clear()
            if self._waiting:
                self._arrived.notify_all()
