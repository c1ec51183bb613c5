"""Everything about jobs, models and endpoints as one value, so that routes and the composition root name it
once.
"""

from __future__ import annotations

from dataclasses import dataclass

from portal.services.accept import Acceptance
from portal.services.answers import Answers
from portal.services.changes import Changes
from portal.services.dead_letters import DeadLetters
from portal.services.dispatch_loop import DispatchLoop
from portal.services.endpoints import Endpoints
from portal.services.files import Files
from portal.services.import_work import ImportWork
from portal.services.imports import Imports
from portal.services.job_details import JobDetails
from portal.services.jobs import Jobs
from portal.services.jobs_actions import Actions
from portal.services.measures import Measures
from portal.services.model_desk import ModelDesk
from portal.services.model_folders import ModelFolders
from portal.services.model_uploads import Uploads
from portal.services.models import Models
from portal.services.orphans import Orphans
from portal.services.ports import Fleet, Tasks


@dataclass(frozen=True)
class Work:
    """What makes pictures. `loop` runs in processes with the role dispatcher."""

    models: Models
    desk: ModelDesk
    folders: ModelFolders
    uploads: Uploads
    endpoints: Endpoints
    acceptance: Acceptance
    jobs: Jobs
    answers: Answers
    details: JobDetails
    actions: Actions
    dead_letters: DeadLetters
    files: Files
    changes: Changes
    fleet: Fleet
    tasks: Tasks
    loop: DispatchLoop
    orphans: Orphans
    measures: Measures
    importing: ImportWork

    @property
    def imports(self) -> Imports:
        """Models by their source, as people ask for them."""
        return self.importing.asked
