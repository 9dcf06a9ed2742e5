from __future__ import annotations

import pytest
from pydantic import ValidationError

from wpa.settings import Settings
from wpa.wire import limits_of


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


def test_what_is_kept_inline_leaves_room_in_a_message() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1048576"):
        Settings(inline_bytes_max=8_000_000)


@pytest.mark.parametrize(
    ("message_bytes", "task_bytes", "inline_bytes"),
    [(8_388_608, 4_194_304, 65_536), (1_048_576, 1_032_192, 65_536), (262_144, 245_760, 32_768)],
)
def test_limits_fit_the_server(message_bytes: int, task_bytes: int, inline_bytes: int) -> None:
    limits = limits_of(Settings(), message_bytes)
    assert (limits.task_bytes_max, limits.inline_bytes_max) == (task_bytes, inline_bytes)
