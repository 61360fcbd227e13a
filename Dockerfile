# Two targets. `production` is the default: worker, beat, Flower and the commands. `dev` has the emulator of Microsoft and
# the embedded servers as well:  docker build --target dev .
# The stages that build stay behind. What runs is the interpreter, one virtual environment and one user.
FROM python:3.13-slim AS base

# A fixed number, so that orchestrators can tell that it is not root and volumes can be given to it.
RUN groupadd --gid 10001 worker \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin worker
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
CMD ["token-worker", "--help"]


FROM python:3.13-slim AS build

WORKDIR /src
RUN python -m venv --without-pip /venv
COPY requirements.lock ./
RUN pip --python /venv/bin/python install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY alembic/ alembic/
COPY worker/ worker/
RUN pip wheel --no-cache-dir --no-deps --wheel-dir dist . \
    && pip --python /venv/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl


FROM build AS build-dev

COPY requirements-dev.lock ./
RUN pip --python /venv/bin/python install --no-cache-dir --require-hashes --requirement requirements-dev.lock


FROM base AS dev

LABEL org.opencontainers.image.title="token-refresh-worker (development)" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build-dev /venv /venv


FROM base AS production

# docker build --build-arg VERSION=... --build-arg REVISION="$(git rev-parse HEAD)" .
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="token-refresh-worker" \
      org.opencontainers.image.description="Keeps Microsoft OAuth 2.0 tokens of mailboxes fresh" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /venv /venv
