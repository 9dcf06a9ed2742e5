# wpa with its first-party plugins. One image for workers, and for `wpa` as a client.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/wpa
# The dependencies first: this layer is kept while only the code changes.
COPY requirements-image.lock ./
RUN /opt/wpa/bin/pip install --no-cache-dir --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY wpa wpa
COPY plugins plugins
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . ./plugins/http ./plugins/orders ./plugins/documents \
    && /opt/wpa/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim
# /shop is where compose mounts the volume of the demo's shop: it takes its owner from here.
RUN useradd --create-home --uid 10001 wpa && install -d -o wpa /shop
COPY --from=build /opt/wpa /opt/wpa
ENV PATH=/opt/wpa/bin:$PATH PYTHONUNBUFFERED=1
USER wpa
WORKDIR /home/wpa
# A worker drains on SIGTERM: give it longer than WPA_GRACE_S before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["wpa"]
CMD ["worker"]
