"""The adapters of AWS, put together for one process."""

from __future__ import annotations

from collections.abc import Mapping

from atelier.contract.errors import NotReady
from atelier.storage.base import BlobStore
from portal.adapters.aws import checks
from portal.adapters.aws import fleet as sagemaker
from portal.adapters.aws.connection import clients
from portal.adapters.aws.fleet import SageMakerFleet
from portal.adapters.aws.inbox import SqsInbox
from portal.adapters.aws.instances import offers
from portal.adapters.aws.names import Names
from portal.adapters.aws.secrets import AwsSecrets
from portal.adapters.aws.tasks import FargateTasks
from portal.adapters.local.deferred import DeferredFleet
from portal.adapters.local.inbox import QueueInbox
from portal.aws_options import AwsOptions
from portal.services.ports import Clock, Fleet, Inbox, PlatformPart, Secrets, Tasks


class Aws:
    """What a studio with platform aws takes its parts from. Nothing is asked of AWS before it is needed."""

    def __init__(self, options: AwsOptions) -> None:
        self._options = options
        self._client = clients(options)
        self._secrets = AwsSecrets(
            self._client("secretsmanager"),
            options.aws_prefix,
            kms_key=options.aws_kms_key,
            labels=options.aws_tags,
        )

    @property
    def secrets(self) -> Secrets:
        """The deployment's keys."""
        return self._secrets

    def tasks(self, store: BlobStore, store_url: str, clock: Clock, log_level: str) -> Tasks:
        """CPU tasks on Fargate."""
        return FargateTasks(self._client, self._options, store, store_url, clock=clock, log_level=log_level)

    def fleet(
        self,
        store: BlobStore,
        store_url: str,
        clock: Clock,
        job_key: str,
        workers: Mapping[str, str],
    ) -> tuple[Fleet, Inbox]:
        """The fleet of a dispatcher, and where its messages arrive. `job_key` is the name of the secret that
        signs bodies, `workers` further settings of workers. Raises NotReady without a queue.
        """
        if not self._options.aws_queue_url:
            raise NotReady(
                "A dispatcher on AWS hears of ended work by a queue. Set ATELIER_AWS_QUEUE_URL "
                "(docs/settings.md)."
            )
        inbox = SqsInbox(self._client("sqs"), self._options.aws_queue_url, store, clock)
        fleet = SageMakerFleet(
            self._client,
            self._options,
            store,
            store_url=store_url,
            job_key_arn=self._secrets.arn(job_key),
            clock=clock,
            tell=inbox.put,
            settings=workers,
        )
        return fleet, inbox

    def deferred(self) -> tuple[Fleet, Inbox]:
        """The same for a process that sends nothing to workers."""
        names = Names(self._options.aws_prefix)
        return DeferredFleet(offers, lambda spec: sagemaker.check(spec, names)), QueueInbox()

    def parts(self, secret: str) -> tuple[PlatformPart, ...]:
        """What of AWS can be looked at, beside the bucket."""
        name = f"{self._options.aws_prefix}/keys/{secret}"
        return checks.parts(self._client, self._options, name)
