# The training worker, with both of SageMaker's contracts: `train` runs the job below /opt/ml and ends, `serve` answers
# /ping and /invocations on 8080. COMPUTE=cpu takes the CPU build of torch. Built from the repository's root; see
# docs/deployment-images.md.
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

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST}
ARG PYTHON_IMAGE
ARG PYTHON_DIGEST
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
ARG RUN_AS=10001:10001
LABEL org.opencontainers.image.title="atelier-training" \
      org.opencontainers.image.description="Atelier's training worker, as a SageMaker job or behind an endpoint" \
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
 && install -d -o 10001 -g 10001 /opt/ml /var/cache/atelier
COPY --from=build /opt/venv /opt/venv
COPY atelier /opt/atelier/atelier
COPY extensions /opt/atelier/extensions
COPY workers/engine /opt/atelier/workers/engine
COPY workers/preprocessing /opt/atelier/workers/preprocessing
COPY workers/runtime /opt/atelier/workers/runtime
COPY workers/training /opt/atelier/workers/training
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ATELIER_HOST=0.0.0.0 \
    ATELIER_MODEL_CACHE=/var/cache/atelier
WORKDIR /opt/atelier
# All that is written: the job's model, checkpoints and reasons; files of runs behind an endpoint.
VOLUME ["/tmp", "/opt/ml", "/var/cache/atelier"]
EXPOSE 8080
USER ${RUN_AS}
# A job ends by itself and answers nobody.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "workers.training"]
CMD ["train"]
