# wpa with its first-party plugins. One image for workers, and for `wpa` as a client.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE CHANGELOG.md ./
RUN python -m venv /opt/wpa && /opt/wpa/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY wpa wpa
COPY plugins plugins
COPY schemas schemas
RUN /opt/wpa/bin/pip install --no-cache-dir --no-deps --no-build-isolation \
        . ./plugins/http ./plugins/orders ./plugins/documents

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 wpa
COPY --from=build /opt/wpa /opt/wpa
ENV PATH=/opt/wpa/bin:$PATH PYTHONUNBUFFERED=1
USER wpa
WORKDIR /home/wpa
# A worker drains on SIGTERM: give it longer than WPA_GRACE_S before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["wpa"]
CMD ["worker"]
