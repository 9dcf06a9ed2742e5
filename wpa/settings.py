"""Settings: read once, at the composition root, from flags and ``WPA_*`` variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["DEFAULT_TENANT", "Settings"]

DEFAULT_TENANT = "default"


class Settings(BaseSettings):
    """Every knob of a wpa process. Each field is the variable ``WPA_<FIELD>`` too."""

    model_config = SettingsConfigDict(env_prefix="WPA_", extra="ignore", frozen=True)

    nats_url: str = Field("", description="URL of a server that is already there, e.g. nats://127.0.0.1:4222")
    nats_creds: Path | None = Field(None, description="credentials file for that server")
    tenant: str = Field(DEFAULT_TENANT, description="the tenant a client speaks for")
    data_dir: Path = Field(Path(".wpa"), description="where the embedded server keeps its data")
    port: int = Field(4222, ge=0, le=65535, description="port of the embedded server; 0 = any free one")
    concurrency: int = Field(500, ge=1, description="executions one worker drives at a time")
    ack_wait_s: float = Field(
        5.0, ge=0.2, description="seconds until a silent worker's task is given to another"
    )
    grace_s: float = Field(10.0, ge=0.0, description="seconds a stopping worker has to finish what it holds")
    snapshot_every_s: float = Field(1.0, gt=0, description="seconds between snapshots of a busy execution")
    snapshot_every_events: int = Field(200, ge=1, description="events between snapshots of a busy execution")
    replicas: int = Field(1, ge=1, le=5, description="replicas of streams and buckets that wpa creates")
    threads: int = Field(32, ge=1, description="threads for steps that are not async")
    process_workers: int = Field(2, ge=1, description="processes for steps with isolation='process'")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    task_bytes_max: int = Field(4 * 1024 * 1024, ge=1024, description="largest task accepted, in bytes")
    inline_bytes_max: int = Field(
        64 * 1024, ge=256, description="largest payload that travels inline, in bytes"
    )
    http_allow_private: bool = Field(False, description="let http.request reach private addresses")
