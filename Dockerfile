# The service in an image: `docker build --tag apportion .`; deploy/compose.yaml runs it with a Kafka and a Redis.
# tests/unit/test_deploy.py holds this file to the settings and the lock.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source

# What changes rarely comes first: a change of the source alone installs nothing again.
COPY requirements/runtime.lock requirements/build.lock requirements/
RUN python -m venv /opt/apportion \
    && /opt/apportion/bin/pip install --quiet --require-hashes --no-deps -r requirements/runtime.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --require-hashes --no-deps -r requirements/build.lock

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY service service
RUN /opt/build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/apportion/bin/pip install --quiet --no-deps --no-index /wheels/*.whl \
    && /opt/apportion/bin/pip uninstall --quiet --yes pip setuptools

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home apportion
COPY --from=build /opt/apportion /opt/apportion
ENV PATH=/opt/apportion/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    APPORTION_HTTP_HOST=0.0.0.0 \
    APPORTION_HTTP_PORT=8080
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["apportion"]
CMD ["serve"]
