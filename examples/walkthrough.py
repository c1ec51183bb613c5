"""From nothing to a picture through the portal's API: make an endpoint, have a picture made on it, fetch it.

    ATELIER_KEY=... python examples/walkthrough.py https://studio.example.com portraits "a red circle"

What a notebook does cell by cell stands here as functions, to be imported into one:

    from walkthrough import Studio
    studio = Studio("https://studio.example.com", key)
    studio.deploy(endpoint_name="portraits", instance_type="ml.g5.xlarge")
    studio.generate("portraits", "a red circle").show()

The key is an API key of somebody who may manage endpoints and have pictures made (endpoints.manage,
jobs.submit, jobs.read). Needs httpx and Pillow, and Atelier itself.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from PIL import Image

from atelier.client import invoke

LOOK_SECONDS = 5.0


class Studio:
    """A studio at `url`, asked with an API key or an access token."""

    def __init__(self, url: str, key: str, *, wait: Callable[[float], object] = time.sleep) -> None:
        self.url = url.rstrip("/")
        self._key, self._wait = key, wait

    def deploy(
        self,
        initial_instance_count: int = 1,
        instance_type: str = "ml.g4dn.xlarge",
        *,
        endpoint_name: str = "stable-diffusion-endpoint",
        patience: float = 1800.0,
        **more: Any,
    ) -> dict[str, Any]:
        """Make an endpoint, if there is none of that name, and wait until it is in service.

        The parameters are those of SageMaker's `deploy`; `more` is whatever POST /api/v1/endpoints takes.
        Raises RuntimeError with the studio's sentence, TimeoutError after `patience` seconds.
        """
        body = {
            "name": endpoint_name,
            "min_instances": initial_instance_count,
            "max_instances": max(1, initial_instance_count),
            "instance_type": instance_type,
        }
        answer = self._asked("POST", "/api/v1/endpoints", json=body | more, known=(409,))
        if answer.is_error:
            print(f"{endpoint_name} is there already.")
        return self._in_service(endpoint_name, patience)

    def generate(self, endpoint_name: str, prompt: str, **more: Any) -> Image.Image:
        """A picture of `prompt`; `more` are members of the plain schema (docs/api.md): width, height, seed,
        num_inference_steps and so on. Raises AtelierError.
        """
        found = invoke(
            f"{self.url}/inference?endpoint_name={quote(endpoint_name, safe='')}",
            {"prompt": prompt, **more},
            token=self._key,
        )
        return Image.open(io.BytesIO(found.pictures[0]))

    def delete(self, endpoint_name: str) -> None:
        """Take an endpoint away, with everything it costs."""
        self._asked("DELETE", f"/api/v1/endpoints/{quote(endpoint_name, safe='')}")

    def _in_service(self, name: str, patience: float) -> dict[str, Any]:
        waited = 0.0
        while True:
            told: dict[str, Any] = self._asked("GET", f"/api/v1/endpoints/{quote(name, safe='')}").json()
            if told["state"] in ("in_service", "asleep"):
                return told
            if told["state"] == "failed":
                raise RuntimeError(f"The endpoint {name} could not be made. {told['reason']}")
            if waited >= patience:
                raise TimeoutError(
                    f"The endpoint {name} is {told['state']} after {patience:.0f} s: {told['because']}"
                )
            self._wait(LOOK_SECONDS)
            waited += LOOK_SECONDS

    def _asked(self, method: str, path: str, known: tuple[int, ...] = (), **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=60.0, **body)
        if answer.is_error and answer.status_code not in known:
            raise RuntimeError(answer.json()["error"]["message"])
        return answer


def main(words: list[str] | None = None) -> None:
    """The walk as a command."""
    parser = argparse.ArgumentParser(description="Make an endpoint, a picture on it, and fetch it.")
    parser.add_argument("url")
    parser.add_argument("endpoint")
    parser.add_argument("prompt")
    parser.add_argument("--instance-type", default="ml.g4dn.xlarge")
    parser.add_argument("--output", default="picture.jpg")
    for name in ("width", "height", "num-inference-steps", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--delete", action="store_true", help="take the endpoint away again")
    given = parser.parse_args(words)
    studio = Studio(given.url, os.environ["ATELIER_KEY"])
    began = time.monotonic()
    studio.deploy(1, given.instance_type, endpoint_name=given.endpoint)
    print(f"{given.endpoint} is in service after {time.monotonic() - began:.0f} s.")
    asked = {name: getattr(given, name) for name in ("width", "height", "num_inference_steps", "seed")}
    named = {name: value for name, value in asked.items() if value is not None}
    studio.generate(given.endpoint, given.prompt, **named).save(given.output)
    print(f"{given.output} is there after {time.monotonic() - began:.0f} s.")
    if given.delete:
        studio.delete(given.endpoint)


if __name__ == "__main__":
    main()
