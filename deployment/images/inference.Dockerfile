# The inference worker, with SageMaker's contract: `serve` answers /ping and /invocations on 8080. COMPUTE=cpu takes
# the CPU build of torch, BAKE_WEIGHTS=yes the checkpoints in deployment/images/weights. Built from the repository's
# root; see docs/deployment-images.md.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS build
ARG COMPUTE=cuda
ARG PIP_INDEX_URL
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY deployment/images/locks /build/locks
RUN python -m venv --without-pip /opt/venv \
 && PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" python -m pip --python /opt/venv install \
    --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "/build/locks/worker-${COMPUTE}.txt" \
 && echo /opt/atelier > /opt/venv/lib/python3.11/site-packages/atelier.pth
ARG BAKE_WEIGHTS=no
COPY atelier /opt/atelier/atelier
COPY workers/runtime /opt/atelier/workers/runtime
COPY deployment/images/weights /build/weights
RUN mkdir /opt/weights \
 && if [ "${BAKE_WEIGHTS}" = yes ]; then /opt/venv/bin/python -m workers.runtime.baking /build/weights /opt/weights; fi

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST}
ARG PYTHON_IMAGE
ARG PYTHON_DIGEST
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
ARG RUN_AS=10001:10001
LABEL org.opencontainers.image.title="atelier-inference" \
      org.opencontainers.image.description="Atelier's inference worker, behind SageMaker's container contract" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.base.digest="${PYTHON_DIGEST}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
RUN groupadd --gid 10001 atelier \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin atelier \
 && install -d -o 10001 -g 10001 /var/cache/atelier
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/weights /opt/weights
COPY atelier /opt/atelier/atelier
COPY extensions /opt/atelier/extensions
COPY workers/engine /opt/atelier/workers/engine
COPY workers/inference /opt/atelier/workers/inference
COPY workers/preprocessing /opt/atelier/workers/preprocessing
COPY workers/runtime /opt/atelier/workers/runtime
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ATELIER_HOST=0.0.0.0 \
    ATELIER_BAKED_MODELS=/opt/weights \
    ATELIER_MODEL_CACHE=/var/cache/atelier
WORKDIR /opt/atelier
# All that is written: model files that were fetched.
VOLUME ["/tmp", "/var/cache/atelier"]
EXPOSE 8080
USER ${RUN_AS}
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080') + '/ping', timeout=4)"]
ENTRYPOINT ["python", "-m", "workers.inference.server"]
CMD ["serve"]
