from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from wpa_orders import (
    Address,
    Item,
    cancel_shipment,
    charge,
    inspect,
    notify,
    refund,
    release,
    reserve,
    seed,
    ship,
)

from wpa.sdk import StepFailed, fake_context

HOME = Address("Ada", "Calle Mayor 1", "Madrid", "ES")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop.db"
    monkeypatch.setenv("WPA_SHOP_DB", str(path))
    seed(path, {"tea": 10, "pot": 2, "cup": 5})
    return path


async def test_reserving_takes_stock_and_prices_the_order(shop: Path) -> None:
    got = await reserve(fake_context(), "o1", [Item("tea", 3), Item("cup", 1)])
    assert got.total_cents == 3 * 895 + 1250
    assert inspect(shop)["stock"] == {"cup": 4, "pot": 2, "tea": 7}


async def test_a_second_run_under_the_same_key_changes_nothing(shop: Path) -> None:
    ctx = fake_context(idempotency_key="o1:reserve:1")
    first = await reserve(ctx, "o1", [Item("tea", 3)])
    after = inspect(shop)
    assert await reserve(ctx, "o1", [Item("tea", 3)]) == first
    assert inspect(shop) == after


async def test_an_order_is_reserved_whole_or_not_at_all(shop: Path) -> None:
    before = inspect(shop)
    with pytest.raises(StepFailed) as caught:
        await reserve(fake_context(), "o1", [Item("tea", 1), Item("pot", 3)])
    assert (caught.value.type, caught.value.retryable) == ("OutOfStock", False)
    assert inspect(shop) == before


async def test_the_same_product_twice_counts_together(shop: Path) -> None:
    with pytest.raises(StepFailed, match="4 of 'pot' wanted, 2 in stock"):
        await reserve(fake_context(), "o1", [Item("pot", 2), Item("pot", 2)])


async def test_compensations_bring_the_shop_back_and_may_run_twice(shop: Path) -> None:
    before = inspect(shop)
    reservation = await reserve(fake_context(idempotency_key="r"), "o1", [Item("tea", 2)])
    receipt = await charge(fake_context(idempotency_key="c"), "o1", reservation.total_cents)
    parcel = await ship(fake_context(idempotency_key="s"), "o1", HOME)
    assert inspect(shop)["charged_cents"] == 1790
    for _ in range(2):
        await cancel_shipment(fake_context(), parcel.shipment_id)
        await refund(fake_context(), receipt.charge_id)
        await release(fake_context(), reservation.reservation_id)
    assert inspect(shop) == before


async def test_undoing_what_never_happened_is_no_error(shop: Path) -> None:
    assert (await refund(fake_context(), "nothing")).changed is False
    assert (await release(fake_context(), "nothing")).changed is False


async def test_the_carrier_refuses_some_addresses_for_good(shop: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        await ship(fake_context(), "o1", Address("Plato", "Acropolis", "Poseidonis", "XA"))
    assert (caught.value.type, caught.value.retryable) == ("AddressRefused", False)


async def test_many_at_once_never_oversell(shop: Path) -> None:
    async def try_one(number: int) -> bool:
        try:
            await reserve(fake_context(idempotency_key=f"k{number}"), f"o{number}", [Item("tea", 1)])
        except StepFailed:
            return False
        return True

    won = await asyncio.gather(*(try_one(number) for number in range(25)))
    assert sum(won) == 10
    assert inspect(shop)["stock"]["tea"] == 0


async def test_a_customer_is_told_once(shop: Path) -> None:
    for _ in range(3):
        await notify(fake_context(idempotency_key="n"), "o1", "on its way")
    assert inspect(shop)["notified"] == 1


def test_the_database_is_made_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WPA_SHOP_DB", str(tmp_path / "new.db"))
    receipt = asyncio.run(charge(fake_context(), "o1", 5))
    assert receipt.amount_cents == 5
