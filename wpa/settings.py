"""Settings: read once, at the composition root, from flags and ``WPA_*`` variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Settings"]

PREFIX = "WPA_"


class Settings(BaseModel):
    """A worker's knobs. Each field is the variable ``WPA_<FIELD>``, too; what is given goes before."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    nats_creds: Path | None = Field(None, description="credentials file for the NATS server")
    concurrency: int = Field(500, ge=1, description="executions one worker drives at a time")
    ack_wait_s: float = Field(2.5, ge=0.2, description="seconds until a silent worker's tasks move on")
    grace_s: float = Field(10.0, ge=0.0, description="seconds a stopping worker has to finish what it holds")
    snapshot_every_s: float = Field(1.0, gt=0, description="seconds between snapshots of a busy execution")
    snapshot_every_events: int = Field(200, ge=1, description="events between snapshots of a busy execution")
    replicas: int = Field(1, ge=1, le=5, description="replicas of the streams and buckets that wpa makes")
    group_appends: bool = Field(
        False, description="sync events of many executions together: for one node with sync_interval always"
    )
    threads: int = Field(32, ge=1, description="threads for steps that are not async")
    process_workers: int = Field(2, ge=1, description="processes for steps with isolation='process'")
    task_bytes_max: int = Field(4 * 1024 * 1024, ge=1024, description="largest task accepted, in bytes")
    inline_bytes_max: int = Field(
        64 * 1024, ge=256, le=1024 * 1024, description="largest payload kept inline, in bytes"
    )
    queues: str = Field(
        "",
        pattern=r"^ *([A-Za-z0-9_-]{1,32} *(, *[A-Za-z0-9_-]{1,32} *)*)?$",
        description="queues whose steps this worker runs, separated by commas",
    )
    flows: str = Field("", description="Python files or modules[:name] with flows, separated by commas")
    trace: str = Field("", pattern="^(|console|otlp)$", description="export spans: console, or otlp")

    @model_validator(mode="before")
    @classmethod
    def _with_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        fields = {PREFIX + name.upper(): name for name in cls.model_fields}
        found = {fields[name]: value for name, value in os.environ.items() if name in fields}
        return {**found, **given}

    @property
    def queue_names(self) -> list[str]:
        """``queues`` as a list, each name once."""
        return _names(self.queues)

    @property
    def flow_modules(self) -> list[str]:
        """``flows`` as a list, each name once."""
        return _names(self.flows)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
