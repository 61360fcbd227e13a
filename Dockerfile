# Two stages: what builds stays behind. What runs is the interpreter, one virtual environment and one user.
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


FROM python:3.13-slim

# A fixed number, so that orchestrators can tell that it is not root and volumes can be given to it.
RUN groupadd --gid 10001 worker \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin worker
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
CMD ["token-worker", "--help"]
