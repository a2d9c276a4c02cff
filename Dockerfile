# The application's image. ./fab deploy builds it from the committed tree.
ARG BASE=debian:trixie-slim

# Shared by both stages, so that the packages are fetched once.
FROM ${BASE} AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libpython3.13 python3 \
 && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*

# uWSGI is published as source only: the compiler stays in this stage.
FROM python AS builder
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-pip python3-venv
RUN python3 -m venv --without-pip /opt/venv
COPY requirements.txt requirements.server.txt /tmp/
# The build host's CA bundle lets pip through an inspecting proxy; as a secret
# mount it never reaches a layer. Without it, pip uses its own.
RUN --mount=type=secret,id=ca-bundle \
    if [ -s /run/secrets/ca-bundle ]; then export PIP_CERT=/run/secrets/ca-bundle; fi \
 && UWSGI_PROFILE_OVERRIDE='ssl=false;xml=false;pcre=false' \
    pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes \
        --requirement /tmp/requirements.txt --requirement /tmp/requirements.server.txt \
 && strip /opt/venv/bin/uwsgi \
 # Compiling at each start would take most of its time; these files never change again.
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM python AS runtime
RUN apt-get update \
 && apt-get install --yes --no-install-recommends haproxy \
 && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*
# Fixed ids, so that a volume or a secret's owner can be named in docker-stack.yml.
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin app
ENV PATH=/opt/venv/bin:$PATH \
    LC_ALL=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FLASK_APP=app \
    TALLY_ENV=production \
    PROMETHEUS_MULTIPROC_DIR=/tmp/metrics
WORKDIR /srv
COPY --from=builder /opt/venv /opt/venv
COPY stack/images/app/ ./
COPY migrations/ migrations/
COPY app/ app/
USER 10001:10001
EXPOSE 8000
# Exec form: Docker runs ./serve directly, and its exit is the container's.
CMD ["./serve"]
HEALTHCHECK --interval=2s --timeout=10s --start-period=60s --retries=3 CMD ["./probe"]
# Last, because they differ in every build.
ARG VERSION
ARG COMMIT
ENV TALLY_VERSION=${VERSION} TALLY_COMMIT=${COMMIT}
