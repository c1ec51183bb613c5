"""The composition root: settings in, services out. Adapters and the database are chosen here and nowhere
else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atelier import redaction
from atelier.contract.errors import InvalidRequest
from atelier.storage.base import BlobStore
from atelier.storage.opening import open_store
from portal.adapters.local import presence
from portal.adapters.local.clock import SystemClock
from portal.adapters.local.deferred import DeferredFleet
from portal.adapters.local.fleet import LocalFleet
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.local.secrets import FileSecrets
from portal.adapters.local.tasks import LocalTasks
from portal.adapters.local.worker_process import Launch
from portal.db.base import Database
from portal.services import audit
from portal.services.accept import Acceptance, Limits
from portal.services.access import AccessRules
from portal.services.answers import Answers
from portal.services.changes import Changes
from portal.services.checkup import Checkup
from portal.services.completion import Completions
from portal.services.container import DISPATCHER, Services
from portal.services.costs import CostBook
from portal.services.credentials import Credentials
from portal.services.dead_letters import DeadLetters
from portal.services.departures import Departures
from portal.services.detections import Detections
from portal.services.dispatch import Dispatcher
from portal.services.dispatch_loop import DispatchLoop, Leadership
from portal.services.dispatch_watch import Watcher
from portal.services.endpoints import Endpoints
from portal.services.files import Files
from portal.services.grids import Grids
from portal.services.health import Health
from portal.services.identity import Identity
from portal.services.import_work import ImportLimits, ImportWork
from portal.services.imports import ImportRules, Imports
from portal.services.inputs import Inputs
from portal.services.intake import Intake
from portal.services.invitations import Invitations
from portal.services.job_details import JobDetails
from portal.services.jobs import Jobs
from portal.services.jobs_actions import Actions
from portal.services.measures import Measures
from portal.services.metrics import Metrics
from portal.services.model_desk import ModelDesk
from portal.services.model_folders import ModelFolders
from portal.services.model_uploads import Uploads
from portal.services.models import Models
from portal.services.orphans import Orphans
from portal.services.own_settings import OwnSettings
from portal.services.passwords import Passwords
from portal.services.ports import Clock, Fleet, Inbox, Secrets, Tasks
from portal.services.progress import ProgressBoard
from portal.services.quotas import Quotas
from portal.services.roles import Roles
from portal.services.sessions import Sessions
from portal.services.setting_levels import SettingLevels
from portal.services.shares import Shares
from portal.services.sharing import Sharing
from portal.services.source_tokens import SourceTokens
from portal.services.styles import Styles
from portal.services.teams import Teams
from portal.services.throttle import LoginThrottle
from portal.services.tokens import AccessTokens
from portal.services.trail import Trail
from portal.services.work import Work
from portal.settings import Settings

if TYPE_CHECKING:
    from portal.adapters.aws.assembly import Aws

SIGNING_KEY = "signing-key"
"""The secret that signs access tokens."""
JOB_KEY = "job-key"
"""The secret that signs bodies for workers; both sides use the bytes of its hexadecimal digits."""
AUDIT_KEY = "audit-key"
"""The secret that seals the audit trail."""
DAY, HOUR, MINUTE = 86_400.0, 3600.0, 60.0


@dataclass
class Overrides:
    """What a test or a command puts in a part's place; None builds the usual one."""

    clock: Clock | None = None
    secrets: Secrets | None = None
    database: Database | None = None
    store: BlobStore | None = None
    passwords: Passwords | None = None
    fleet: Fleet | None = None
    inbox: Inbox | None = None
    tasks: Tasks | None = None
    limits: Limits | None = None


def build(settings: Settings, **overrides: Any) -> Services:
    """The services of one process. `overrides` are the fields of Overrides. Nothing is started and nothing
    migrated.
    """
    given = Overrides(**overrides)
    clock = given.clock or SystemClock()
    aws = _aws(settings)
    secrets = given.secrets or (aws.secrets if aws else FileSecrets(settings.secrets_dir))
    database = given.database or open_database(settings)
    audit.keep(database, secrets.get(AUDIT_KEY))
    redaction.hide(_job_key(secrets).decode(), secrets.get(SIGNING_KEY).hex(), database.url.password)
    store = given.store or open_store(settings.store)
    sessions = _sessions(settings, database, secrets, clock)
    passwords = given.passwords or Passwords(settings.password_min_length)
    identity = Identity(database, passwords, sessions, LoginThrottle(database, clock), clock)
    fleet, inbox = _fleet(settings, given, secrets, aws, store, clock)
    tasks = given.tasks or _tasks(settings, aws, store, clock)
    platform = aws.parts(JOB_KEY) if aws else ()
    departures = Departures(database, store, identity, clock, changes := Changes())
    chores = [departures.sweep]
    work = build_work(
        settings, database, store, clock, changes, fleet, inbox, tasks, secrets, given.limits, chores
    )
    health = Health(database, store, clock, work.loop.faults, platform=platform)
    levels, trail = SettingLevels(database, clock), Trail(database, secrets.get(AUDIT_KEY))
    return Services(
        settings=settings,
        database=database,
        store=store,
        clock=clock,
        secrets=secrets,
        sessions=sessions,
        identity=identity,
        credentials=Credentials(database, identity, sessions, clock),
        invitations=Invitations(database, identity, clock),
        departures=departures,
        roles=Roles(database, sessions, clock),
        teams=Teams(database, clock),
        quotas=Quotas(database, clock),
        shares=Shares(database),
        access=AccessRules(database, clock, work.changes),
        trail=trail,
        styles=Styles(database, clock, work.models.publish),
        sharing=Sharing(database, changes, work.models.publish),
        own_settings=OwnSettings(levels),
        setting_levels=levels,
        work=work,
        detections=Detections(database, store, tasks, Inputs(store)),
        metrics=_metrics(database, work),
        costs=CostBook(database, clock),
        health=health,
        checkup=Checkup(settings, health, database, store, trail, work.endpoints, work.details, platform),
        platform=platform,
    )


def _sessions(settings: Settings, database: Database, secrets: Secrets, clock: Clock) -> Sessions:
    return Sessions(
        database,
        AccessTokens(_signing_keys(secrets)),
        clock,
        access_seconds=settings.access_minutes * MINUTE,
        session_seconds=settings.session_days * DAY,
    )


def build_work(
    settings: Settings,
    database: Database,
    store: BlobStore,
    clock: Clock,
    changes: Changes,
    fleet: Fleet,
    inbox: Inbox,
    tasks: Tasks,
    secrets: Secrets,
    limits: Limits | None = None,
    chores: Sequence[Callable[[], object]] = (),
) -> Work:
    """Everything about jobs, models and endpoints."""
    board, measures = ProgressBoard(store, clock), Measures()
    models = Models(database, store, clock, Intake(store, tasks))
    leadership = Leadership(database, clock, presence.own_name(), presence.gone)
    endpoints = Endpoints(database, store, fleet, clock, changes, models, leadership.may_lead)
    completions = Completions(database, store, clock, changes, measures=measures)
    jobs, files, answers = _shown(database, store, clock, changes, board)
    actions, desk = Actions(database, store, clock, changes), ModelDesk(database, store, clock, models, files)
    uploads = _uploads(settings, database, models)
    orphans = Orphans(database, store, clock, desk, [uploads])
    imports = _imports(settings, database, secrets, clock)
    importing = _import_work(settings, imports, store, tasks, models, leadership)
    loop = DispatchLoop(
        leadership,
        Dispatcher(database, store, fleet, clock, changes, completions, _job_key(secrets), measures),
        Watcher(database, fleet, clock, changes, completions, board),
        completions,
        endpoints,
        actions,
        inbox,
        clock,
        changes,
        [*chores, answers.deliver, orphans.round, importing.imports],
        measures,
    )
    accepts = Acceptance(database, clock, changes, imports.quotas, limits, Inputs(store).keep, fleet.offers)
    return Work(
        models=models,
        desk=desk,
        folders=ModelFolders(database, clock, models),
        uploads=uploads,
        endpoints=endpoints,
        acceptance=accepts,
        jobs=jobs,
        answers=answers,
        details=JobDetails(database, clock),
        actions=actions,
        dead_letters=DeadLetters(database, clock, changes, imports.quotas, accepts.take_room),
        files=files,
        changes=changes,
        fleet=fleet,
        tasks=tasks,
        loop=loop,
        orphans=orphans,
        measures=measures,
        importing=importing,
    )


def _imports(settings: Settings, database: Database, secrets: Secrets, clock: Clock) -> Imports:
    rules = ImportRules(
        settings.hub_url.rstrip("/"), settings.import_hosts, settings.import_networks, settings.import_buckets
    )
    tokens = SourceTokens(database, secrets, clock, settings.hub_url)
    return Imports(database, clock, rules, tokens, Quotas(database, clock))


def _import_work(
    settings: Settings,
    imports: Imports,
    store: BlobStore,
    tasks: Tasks,
    models: Models,
    leadership: Leadership,
) -> ImportWork:
    options = {"region": settings.aws_region, "endpoint_url": settings.aws_endpoint_url}
    limits = ImportLimits(
        settings.max_model_bytes,
        settings.import_hours * HOUR,
        settings.import_tasks,
        {name: value for name, value in options.items() if value},
    )
    return ImportWork(imports, store, tasks, models, limits, leadership.holder, presence.gone)


def _shown(
    database: Database, store: BlobStore, clock: Clock, changes: Changes, board: ProgressBoard
) -> tuple[Jobs, Files, Answers]:
    """What people see of their jobs."""
    jobs = Jobs(database, store, clock, board, Grids(database, store, clock, changes))
    files = Files(database, store)
    return jobs, files, Answers(database, store, jobs, files)


def _uploads(settings: Settings, database: Database, models: Models) -> Uploads:
    here = settings.store.startswith("file:")
    folder = settings.data_dir / "uploads"
    return Uploads(database, models, folder, settings.max_model_bytes, stored_here=here)


def _metrics(database: Database, work: Work) -> Metrics:
    return Metrics(
        database,
        accepted=lambda: work.acceptance.accepted,
        leads=lambda: work.loop.leading,
        swept=lambda: work.orphans.removed,
        measures=work.measures,
    )


def _aws(settings: Settings) -> Aws | None:
    """The adapters of AWS, where the studio is there. What needs AWS's library is imported then alone."""
    if settings.platform != "aws":
        return None
    try:
        from portal.adapters.aws.assembly import Aws
    except ImportError as error:
        raise InvalidRequest(
            "ATELIER_PLATFORM=aws needs boto3, which is not installed here: pip install 'atelier[aws]'"
        ) from error
    return Aws(settings)


def _tasks(settings: Settings, aws: Aws | None, store: BlobStore, clock: Clock) -> Tasks:
    if aws is not None:
        return aws.tasks(store, settings.store, clock, settings.log_level)
    return LocalTasks(store, settings.store, settings.data_dir, log_level=settings.log_level)


def _fleet(
    settings: Settings, given: Overrides, secrets: Secrets, aws: Aws | None, store: BlobStore, clock: Clock
) -> tuple[Fleet, Inbox]:
    """The fleet, and where its messages arrive. Workers are started by dispatchers alone."""
    if given.fleet is not None:
        return given.fleet, given.inbox or QueueInbox()
    if DISPATCHER not in settings.roles:
        return aws.deferred() if aws else (DeferredFleet(), QueueInbox())
    # What workers may know: how to run, and nothing of the portal's own secrets.
    known: dict[str, str] = {
        "ATELIER_ATTENTION": settings.worker_attention,
        "ATELIER_LOG_LEVEL": settings.log_level,
        "ATELIER_LOG_FORMAT": settings.log_format or "json",
    }
    if aws is not None:
        return aws.fleet(store, settings.store, clock, JOB_KEY, known)
    known["ATELIER_DEVICE"] = settings.worker_device
    inbox = QueueInbox()
    launch = Launch(store_url=settings.store, job_key=_job_key(secrets).decode(), settings=known)
    return LocalFleet(inbox, launch, settings.data_dir), inbox


def _job_key(secrets: Secrets) -> bytes:
    """The key that signs what is sent to workers, as text, since it reaches them in a variable."""
    return secrets.get(JOB_KEY).hex().encode()


def open_database(settings: Settings) -> Database:
    """The database of the settings; a SQLite file's directory is made."""
    database = Database(settings.database)
    if database.is_sqlite:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return database


def _signing_keys(secrets: Secrets) -> dict[str, bytes]:
    """The key by a name derived from it, so that a new key never goes by an old one's name."""
    key = secrets.get(SIGNING_KEY)
    return {hashlib.sha256(key).hexdigest()[:12]: key}
