# CPU tasks, one to a container: importing, converting, hashing. Its arguments are the task. Built from the
# repository's root; see docs/deployment-images.md.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS build
ARG COMPUTE=cpu
ARG PIP_INDEX_URL
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY deployment/images/locks /build/locks
RUN python -m venv --without-pip /opt/venv \
 && PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" python -m pip --python /opt/venv install \
    --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "/build/locks/worker-${COMPUTE}.txt" \
 && echo /opt/atelier > /opt/venv/lib/python3.11/site-packages/atelier.pth

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST}
ARG PYTHON_IMAGE
ARG PYTHON_DIGEST
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
ARG RUN_AS=10001:10001
LABEL org.opencontainers.image.title="atelier-tasks" \
      org.opencontainers.image.description="Atelier's CPU tasks: importing, converting and hashing model files" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.base.digest="${PYTHON_DIGEST}"
RUN groupadd --gid 10001 atelier \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin atelier \
 && install -d -o 10001 -g 10001 /var/lib/atelier
COPY --from=build /opt/venv /opt/venv
COPY atelier /opt/atelier/atelier
COPY workers/engine /opt/atelier/workers/engine
COPY workers/preprocessing /opt/atelier/workers/preprocessing
COPY workers/tasks /opt/atelier/workers/tasks
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    TMPDIR=/var/lib/atelier
WORKDIR /opt/atelier
# All that is written: files that are being converted.
VOLUME ["/tmp", "/var/lib/atelier"]
USER ${RUN_AS}
# A task ends by itself and answers nobody.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "workers.tasks"]
