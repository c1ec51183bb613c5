# The web UI: Gradio on a CPU. No torch, no database, no cloud, no secret. Built from the repository's root;
# docs/deployment-images.md says what its arguments are.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS build
ARG PIP_INDEX_URL
COPY deployment/images/locks/webui.txt /build/lock.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary :all: -r /build/lock.txt \
 && echo /opt/atelier > /opt/venv/lib/python3.11/site-packages/atelier.pth

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST}
ARG PYTHON_IMAGE
ARG PYTHON_DIGEST
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
ARG RUN_AS=10001:10001
LABEL org.opencontainers.image.title="atelier-webui" \
      org.opencontainers.image.description="Atelier's web UI: forms and layout, on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.base.digest="${PYTHON_DIGEST}"
RUN groupadd --gid 10001 atelier \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin atelier
COPY --from=build /opt/venv /opt/venv
COPY atelier /opt/atelier/atelier
COPY extensions /opt/atelier/extensions
COPY webui /opt/atelier/webui
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    ATELIER_HOST=0.0.0.0 \
    ATELIER_PORT=7860
WORKDIR /opt/atelier
# All that is written: Gradio's scratch folder.
VOLUME ["/tmp"]
EXPOSE 7860
USER ${RUN_AS}
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('ATELIER_PORT', '7860') + '/ui/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "webui.app"]
