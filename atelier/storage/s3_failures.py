"""What S3 refused and why, as errors that a person can act on."""

from __future__ import annotations

from typing import Any

from atelier.contract.errors import StorageFailed

ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
"""Codes of S3 for a key that is not there."""
UNCHANGED = frozenset({"304", "NotModified"})
"""Codes for a value that is what it was."""
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "Forbidden"})
_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_ELSEWHERE = frozenset(
    {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"}
)
_BUSY = frozenset(
    {"SlowDown", "ServiceUnavailable", "503", "Throttling", "RequestLimitExceeded", "InternalError"}
)
_CONNECTION = frozenset(
    {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
     "ProxyConnectionError", "SSLError", "HTTPClientError", "ResponseStreamingError", "IncompleteReadError"}
)  # fmt: skip
_UNSIGNED = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})


def code_of(error: BaseException) -> str:
    """S3's code of a failed call, else the name of the exception's class."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code") or "")
    return type(error).__name__


def readable(what: str, bucket: str, error: BaseException) -> StorageFailed:
    """What to raise for a failed call: `what` was to be done, what S3 said, and what to do about it."""
    code = code_of(error)
    return StorageFailed(f"{what}: {_reason(code, bucket, error)}", detail={"code": code, "bucket": bucket})


def _reason(code: str, bucket: str, error: BaseException) -> str:
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket}. Create it, or correct the store's URL."
    if code.startswith("KMS") or "kms:" in str(error):
        return (
            f"S3 could not use the key of the bucket {bucket} ({_said(error)}). Let this process's role use "
            "the KMS key (kms:GenerateDataKey, kms:Decrypt), and see that the key is enabled."
        )
    if code in _DENIED:
        return (
            f"this process's role may not do that in the bucket {bucket} ({code}). Its policy needs "
            "s3:GetObject, s3:PutObject and s3:DeleteObject on the store's prefix and s3:ListBucket on the "
            "bucket, and the KMS key's use where there is one."
        )
    if code in _CREDENTIALS:
        return f"AWS does not accept the credentials ({code}). Renew them, or give the process a role."
    if code in _UNSIGNED:
        return "no AWS credentials were found. Give the process a role, or set AWS_PROFILE."
    if code in _ELSEWHERE:
        return f"the bucket {bucket} is in another region ({_said(error)}). Set ATELIER_AWS_REGION to it."
    if code in _BUSY:
        return f"S3 is too busy to answer ({code}), also after several tries. It passes; try again later."
    if code in _CONNECTION:
        return (
            f"S3 could not be reached ({_said(error)}). Check the region, the network and the S3 endpoint of "
            "the VPC."
        )
    return f"S3 answered {code}: {_said(error)}"


def _said(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    told = response.get("Error", {}).get("Message") if isinstance(response, dict) else None
    return str(told or error)[:300].strip().rstrip(".")
