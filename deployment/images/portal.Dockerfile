# The portal: every API, the admin pages, the dispatcher. `portal` serves; `prepare`, `migrate`, `doctor` and the other
# commands of `atelier` are the other arguments. Built from the repository's root; see docs/deployment-images.md.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS build
ARG PIP_INDEX_URL
COPY deployment/images/locks/portal.txt /build/lock.txt
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
LABEL org.opencontainers.image.title="atelier-portal" \
      org.opencontainers.image.description="Atelier's portal: users, rights, models, endpoints, jobs" \
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
COPY extensions /opt/atelier/extensions
COPY portal /opt/atelier/portal
COPY models /opt/atelier/models
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    ATELIER_PORTAL_HOST=0.0.0.0 \
    ATELIER_PORTAL_PORT=8000 \
    ATELIER_DATA_DIR=/var/lib/atelier
WORKDIR /opt/atelier
# All that is written: files that are being uploaded, and, without a database and a store elsewhere, those.
VOLUME ["/tmp", "/var/lib/atelier"]
EXPOSE 8000
USER ${RUN_AS}
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('ATELIER_PORTAL_PORT', '8000') + '/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "portal.cli"]
CMD ["portal"]
