"""The account's quotas, as Service Quotas lists them: plenty of everything. Too small a quota is a fault, met
where instances are asked for (rehearsal.faults).
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import botocore.session

PLENTY = 100.0
TARGET = "ServiceQuotasV20190624"
"""What names the service in a request's header."""


@cache
def of_endpoints() -> dict[str, Any]:
    """ListServiceQuotas for SageMaker: one for each kind of instance that its own models name."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    kinds = model.shape_for("ProductionVariantInstanceType").enum
    return {"Quotas": [_quota(f"{kind} for endpoint usage") for kind in kinds]}


def _quota(name: str) -> dict[str, Any]:
    code = hashlib.sha256(name.encode()).hexdigest()[:8].upper()
    return {"ServiceCode": "sagemaker", "QuotaName": name, "QuotaCode": f"L-{code}", "Value": PLENTY}
