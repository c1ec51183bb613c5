"""The one address of the simulated account: SageMaker's endpoints are answered here, the rest by moto."""

from __future__ import annotations

import io
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from rehearsal import quotas
from rehearsal.account import ACCOUNT
from rehearsal.controls import Controls
from rehearsal.endpoint import Endpoint
from rehearsal.refusals import Refused
from rehearsal.simulation import Simulation
from rehearsal.tasks import TaskRunner
from rehearsal.variant import Answer, Invocation

_INVOKED = re.compile(r"/endpoints/([^/]+)/(invocations|async-invocations)\Z")
_KNOWN_TO_MOTO = "ml.g4dn.xlarge"
_REALTIME_SECONDS = 60.0
Start = Callable[[str, list[tuple[str, str]]], Any]
Environ = dict[str, Any]


class Front:
    """A WSGI application. Only calls to SageMaker meet the throttling that is asked for."""

    def __init__(self, simulation: Simulation, controls: Controls, tasks: TaskRunner | None = None) -> None:
        self._simulation = simulation
        self.tasks = tasks
        self._controls = controls
        self._moto: Any = DomainDispatcherApplication(create_backend_app)
        self._operations: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "CreateEndpoint": self._create,
            "DescribeEndpoint": self._describe,
            "UpdateEndpoint": self._update,
            "UpdateEndpointWeightsAndCapacities": self._resize,
            "DeleteEndpoint": self._delete,
        }

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_rehearsal/"):
            return self._controls(environ, start)
        invoked = _INVOKED.match(path)
        target, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        try:
            if invoked or target == "SageMaker":
                self._throttle()
            if invoked and _service(environ) == "sagemaker":
                return self._invoke(environ, start, invoked.group(1), invoked.group(2))
            if target == "SageMaker" and operation in self._operations:
                said = self._operations[operation](json.loads(_body(environ)))
                return _json(start, 200, said, "application/x-amz-json-1.1")
            if target == quotas.TARGET and operation == "ListServiceQuotas":
                return _json(start, 200, quotas.of_endpoints(), "application/x-amz-json-1.1")
            if target == "SageMaker" and operation == "CreateEndpointConfig":
                return self._create_config(environ, start)
        except Refused as error:
            return _refusal(start, error)
        answer: Iterable[bytes] = self._moto(environ, start)
        if _service(environ) == "monitoring":
            answer = list(answer)
            self._simulation.collect()
        if self.tasks is not None and target.startswith("AmazonEC2ContainerService"):
            answer = list(answer)
            self._run_tasks(self.tasks, operation, b"".join(answer))
        return answer

    def _run_tasks(self, tasks: TaskRunner, operation: str, answer: bytes) -> None:
        if operation == "RunTask":
            tasks.started(json.loads(answer))
        elif operation == "StopTask":
            tasks.stopped(json.loads(answer))

    def _throttle(self) -> None:
        with self._simulation.clock.lock:
            if self._simulation.chance.strikes(self._simulation.chance.faults.throttled):
                raise Refused("ThrottlingException", "Rate exceeded")

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        arn = self._simulation.create(
            asked["EndpointName"], asked["EndpointConfigName"], asked.get("Tags") or []
        )
        return {"EndpointArn": arn}

    def _describe(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._simulation.clock.lock:
            return self._described(self._simulation.get(asked["EndpointName"]))

    def _described(self, endpoint: Endpoint) -> dict[str, Any]:
        said: dict[str, Any] = {
            "EndpointName": endpoint.name,
            "EndpointArn": self._arn(endpoint.name),
            "EndpointConfigName": endpoint.variant.config,
            "EndpointStatus": endpoint.status,
            "CreationTime": endpoint.created,
            "LastModifiedTime": endpoint.modified,
            "ProductionVariants": [
                {
                    "VariantName": endpoint.variant.name,
                    "CurrentWeight": 1.0,
                    "DesiredWeight": 1.0,
                    "CurrentInstanceCount": endpoint.serving,
                    "DesiredInstanceCount": endpoint.wanted,
                }
            ],
        }
        return said | ({"FailureReason": endpoint.reason} if endpoint.reason else {})

    def _update(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["EndpointName"]
        keep = bool(asked.get("RetainAllVariantProperties"))
        self._simulation.update(name, asked["EndpointConfigName"], keep_count=keep)
        return {"EndpointArn": self._arn(name)}

    def _resize(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["EndpointName"]
        for each in asked["DesiredWeightsAndCapacities"]:
            if "DesiredInstanceCount" in each:
                self._simulation.resize(name, int(each["DesiredInstanceCount"]))
        return {"EndpointArn": self._arn(name)}

    def _delete(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._simulation.delete(asked["EndpointName"])
        return {}

    def _create_config(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """moto keeps it; instance types that it does not know are put in afterwards."""
        asked = json.loads(_body(environ))
        types = [each.get("InstanceType", "") for each in asked["ProductionVariants"]]
        for each in asked["ProductionVariants"]:
            if each.get("InstanceType", "").startswith("ml."):
                each["InstanceType"] = _KNOWN_TO_MOTO
        data = json.dumps(asked).encode()
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(data), str(len(data))
        answer = list(self._moto(environ, start))
        if b"EndpointConfigArn" in b"".join(answer):
            self._simulation.account.set_instance_type(asked["EndpointConfigName"], types)
        return answer

    def _invoke(self, environ: Environ, start: Start, name: str, how: str) -> Iterable[bytes]:
        if how == "invocations":
            return self._invoke_now(environ, start, name)
        said = {
            part: environ.get(f"HTTP_X_AMZN_SAGEMAKER_{part}", "")
            for part in (
                "CONTENT_TYPE",
                "ACCEPT",
                "CUSTOM_ATTRIBUTES",
                "INFERENCE_ID",
                "INPUTLOCATION",
                "S3OUTPUTPATHEXTENSION",
                "FILENAME",
                "REQUESTTTLSECONDS",
                "INVOCATIONTIMEOUTSECONDS",
            )
        }
        body = _body(environ)
        if not said["INPUTLOCATION"] and not body:
            raise Refused("ValidationError", "InputLocation or Body is needed.")
        invocation = Invocation(
            id=said["INFERENCE_ID"] or str(uuid.uuid4()),
            received=0.0,
            body=body or None,
            input=said["INPUTLOCATION"],
            content_type=said["CONTENT_TYPE"] or "application/json",
            accept=said["ACCEPT"],
            custom=said["CUSTOM_ATTRIBUTES"],
            ttl=float(said["REQUESTTTLSECONDS"] or 21600),
            timeout=float(said["INVOCATIONTIMEOUTSECONDS"] or 900),
        )
        self._simulation.invoke_async(name, invocation, said["S3OUTPUTPATHEXTENSION"], said["FILENAME"])
        headers = [("X-Amzn-SageMaker-OutputLocation", invocation.output)]
        if invocation.failure:
            headers.append(("X-Amzn-SageMaker-FailureLocation", invocation.failure))
        return _json(start, 202, {"InferenceId": invocation.id}, "application/json", headers)

    def _invoke_now(self, environ: Environ, start: Start, name: str) -> Iterable[bytes]:
        """Wait for the worker's answer in this request's own thread."""
        answered = threading.Event()
        got: list[tuple[Answer, str]] = []

        def take(answer: Answer, variant: str) -> None:
            got.append((answer, variant))
            answered.set()

        invocation = Invocation(
            id=environ.get("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID") or str(uuid.uuid4()),
            received=0.0,
            body=_body(environ),
            content_type=environ.get("CONTENT_TYPE") or "application/json",
            accept=environ.get("HTTP_ACCEPT", ""),
            custom=environ.get("HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES", ""),
            timeout=_REALTIME_SECONDS,
            answered=take,
        )
        self._simulation.invoke(name, invocation)
        answered.wait()
        answer, variant = got[0]
        if answer.good:
            start(
                "200 OK",
                [
                    ("Content-Type", answer.content_type),
                    ("Content-Length", str(len(answer.body))),
                    ("x-Amzn-Invoked-Production-Variant", variant),
                ],
            )
            return [answer.body]
        said = {
            "Message": f"Received error ({answer.status}) from primary with message {answer.body[:500]!r}.",
            "OriginalStatusCode": answer.status or 504,
            "OriginalMessage": answer.body.decode(errors="replace"),
        }
        return _json(start, 424, said, "application/json", [("x-amzn-errortype", "ModelError")])

    def _arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:{self._simulation.account.region}:{ACCOUNT}:endpoint/{name}"


def _service(environ: Environ) -> str:
    """The service a request is signed for."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3].lower() if len(scope) > 4 else ""


def _body(environ: Environ) -> bytes:
    if environ.get("HTTP_TRANSFER_ENCODING", "") == "chunked":
        return bytes(environ["wsgi.input"].read())
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _refusal(start: Start, error: Refused) -> Iterable[bytes]:
    said = {"__type": error.code, "message": error.message}
    return _json(start, error.status, said, "application/x-amz-json-1.1", [("x-amzn-errortype", error.code)])


_REASONS = {200: "OK", 202: "Accepted", 400: "Bad Request", 424: "Failed Dependency"}


def _json(
    start: Start,
    status: int,
    said: Mapping[str, Any],
    content_type: str,
    headers: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    data = json.dumps(said).encode()
    start(
        f"{status} {_REASONS.get(status, 'Service Unavailable')}",
        [
            ("Content-Type", content_type),
            ("Content-Length", str(len(data))),
            ("x-amzn-RequestId", str(uuid.uuid4())),
            *headers,
        ],
    )
    return [data]
