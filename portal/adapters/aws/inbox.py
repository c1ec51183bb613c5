"""Completions from SQS, which both topics of SageMaker's notices feed, and from calls of this process."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from atelier.storage.base import BlobStore
from portal.adapters.aws import failures, notices
from portal.services.ports import Clock, Completion, Message

log = logging.getLogger(__name__)

POLL_SECONDS = 20
"""How long SQS keeps a question open where there is nothing: the most it allows, so that an idle studio asks
three times a minute.
"""
AT_ONCE = 10
VISIBILITY_SECONDS = 60
"""Until a message that was handed out and not acknowledged comes again."""
PAUSE_SECONDS = 5.0
"""Until a queue that did not answer is asked again."""
_SHOWN = 300


class SqsInbox:
    """Inbox on a queue. `client` is a boto3 client of SQS whose read timeout is longer than POLL_SECONDS.

    One question at a time is open with SQS, also between calls of `receive`: what comes is there at once.
    Messages that are no completions of this studio are removed with a line in the log. Safe for threads.
    """

    def __init__(
        self, client: Any, queue_url: str, store: BlobStore, clock: Clock, *, poll_seconds: int = POLL_SECONDS
    ) -> None:
        self._client, self._queue, self._clock = client, queue_url, clock
        self._store = store.location("jobs").removesuffix("jobs")
        self._poll_seconds = poll_seconds
        self._arrived = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._own: set[str] = set()
        self._asking = False
        self._not_before = float("-inf")

    def put(self, completion: Completion) -> None:
        """Leave a message of this process: a call that waited has ended. It is lost with the process, as the
        call is.
        """
        with self._arrived:
            message = Message(f"own-{uuid.uuid4().hex}", completion)
            self._own.add(message.receipt)
            self._waiting.append(message)
            self._arrived.notify_all()

    def receive(self, timeout: float) -> list[Message]:
        """See Inbox. A queue that does not answer is a warning in the log and nothing received: the watcher
        finds what has ended in the store.
        """
        if timeout <= 0:
            self._ask(0)
        with self._arrived:
            if timeout > 0:
                self._ask_beside()
                self._arrived.wait_for(lambda: bool(self._waiting), timeout)
            found = list(self._waiting)
            self._waiting.clear()
            return found

    def ack(self, receipt: str) -> None:
        """See Inbox. Where SQS does not hear it, the message comes again, which does no harm."""
        with self._arrived:
            if receipt in self._own:
                self._own.remove(receipt)
                return
        self._remove(receipt)

    def _ask_beside(self) -> None:
        """Let a thread wait for SQS, unless one does, or SQS failed a moment ago."""
        if self._asking or self._clock.monotonic() < self._not_before:
            return
        self._asking = True
        threading.Thread(target=self._wait_for_sqs, name="inbox", daemon=True).start()

    def _wait_for_sqs(self) -> None:
        try:
            self._ask(self._poll_seconds)
        finally:
            with self._arrived:
                self._asking = False

    def _ask(self, wait: int) -> None:
        """Take in what SQS has, or what comes first within `wait` seconds."""
        try:
            answer = self._client.receive_message(
                QueueUrl=self._queue,
                MaxNumberOfMessages=AT_ONCE,
                WaitTimeSeconds=wait,
                VisibilityTimeout=VISIBILITY_SECONDS,
            )
        except (ClientError, BotoCoreError) as error:
            log.warning("%s", failures.translated(error, "asking the queue of ended work").message)
            with self._arrived:
                self._not_before = self._clock.monotonic() + PAUSE_SECONDS
            return
        found = [self._read(each) for each in answer.get("Messages", ())]
        with self._arrived:
            self._waiting.extend(message for message in found if message is not None)
            self._arrived.notify_all()

    def _read(self, told: dict[str, Any]) -> Message | None:
        notice = notices.read(told.get("Body", ""), self._store)
        if notice.completion is not None:
            return Message(told["ReceiptHandle"], notice.completion)
        level = logging.WARNING if notice.malformed else logging.INFO
        log.log(level, "a message was removed from the queue: %s", notice.why_not)
        if notice.malformed:
            log.debug("it said %r", told.get("Body", "")[:_SHOWN])
        self._remove(told["ReceiptHandle"])
        return None

    def _remove(self, receipt: str) -> None:
        try:
            self._client.delete_message(QueueUrl=self._queue, ReceiptHandle=receipt)
        except (ClientError, BotoCoreError) as error:
            log.warning("%s", failures.translated(error, "acknowledging a message").message)
