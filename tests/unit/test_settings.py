from __future__ import annotations

import pytest
from pydantic import ValidationError

from wpa.settings import Settings


def test_a_field_is_a_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WPA_CONCURRENCY", "7")
    monkeypatch.setenv("WPA_ACK_WAIT_S", "0.5")
    monkeypatch.setenv("WPA_SOMETHING_ELSE", "1")
    settings = Settings(concurrency=9)
    assert settings.concurrency == 9
    assert settings.ack_wait_s == 0.5
    assert settings.grace_s == 10.0


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WPA_REPLICAS", "many")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [error["loc"] for error in caught.value.errors()] == [("replicas",)]
