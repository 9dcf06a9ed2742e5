"""The order saga's steps: reserve, charge, ship, notify, and what undoes them, on a real SQLite shop.

The database is the file that ``WPA_SHOP_DB`` names (``shop.db`` in the working folder by default).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from wpa.sdk import StepContext, StepFailed, hookimpl, step
from wpa_orders.shop import Shop, every, inspect, one, seed

__all__ = ["inspect", "seed", "wpa_steps"]

SERVED = frozenset(
    {"DE", "AT", "CH", "ES", "FR", "IT", "PT", "NL", "BE", "GB", "US", "MX", "AR", "CO", "CL", "PE"}
)


class Item(msgspec.Struct):
    """A product and how many of it."""

    sku: str
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class Address(msgspec.Struct):
    """Where to ship."""

    name: str
    street: str
    city: str
    country: str
    """ISO 3166 alpha-2, e.g. ES."""


class Reservation(msgspec.Struct):
    reservation_id: str
    total_cents: int


class Receipt(msgspec.Struct):
    charge_id: str
    amount_cents: int


class Shipment(msgspec.Struct):
    shipment_id: str
    tracking: str


class Undone(msgspec.Struct):
    """What a compensation found: ``changed`` is False where there was nothing (left) to undo."""

    id: str
    changed: bool


def _shop() -> Shop:
    return Shop(Path(os.environ.get("WPA_SHOP_DB", "shop.db")))


@step("orders.reserve")
async def reserve(ctx: StepContext, order_id: str, items: list[Item]) -> Reservation:
    """Take the items out of stock, all of them or none."""
    if not items:
        raise StepFailed("an order needs at least one item", type="EmptyOrder", retryable=False)
    key = ctx.idempotency_key
    async with _shop().transaction() as db:
        done = await one(db, "SELECT total_cents FROM reservations WHERE id = ?", key)
        if done is not None:
            return Reservation(key, done["total_cents"])
        wanted: dict[str, int] = {}
        for item in items:
            wanted[item.sku] = wanted.get(item.sku, 0) + item.quantity
        total = 0
        for sku, quantity in wanted.items():
            product = await one(db, "SELECT price_cents, stock FROM products WHERE sku = ?", sku)
            if product is None:
                raise StepFailed(f"there is no product {sku!r}", type="UnknownProduct", retryable=False)
            if product["stock"] < quantity:
                message = f"{quantity} of {sku!r} wanted, {product['stock']} in stock"
                raise StepFailed(message, type="OutOfStock", retryable=False, details={"sku": sku})
            total += product["price_cents"] * quantity
            await db.execute("UPDATE products SET stock = stock - ? WHERE sku = ?", (quantity, sku))
        await db.execute("INSERT INTO reservations VALUES (?, ?, ?, 'reserved')", (key, order_id, total))
        rows = [(key, sku, quantity) for sku, quantity in wanted.items()]
        await db.executemany("INSERT INTO reserved_items VALUES (?, ?, ?)", rows)
    return Reservation(key, total)


@step("orders.release")
async def release(ctx: StepContext, reservation_id: str) -> Undone:
    """Put reserved items back into stock."""
    async with _shop().transaction() as db:
        found = await one(db, "SELECT status FROM reservations WHERE id = ?", reservation_id)
        if found is None or found["status"] == "released":
            return Undone(reservation_id, changed=False)
        items = await every(
            db, "SELECT sku, quantity FROM reserved_items WHERE reservation_id = ?", reservation_id
        )
        for item in items:
            await db.execute(
                "UPDATE products SET stock = stock + ? WHERE sku = ?", (item["quantity"], item["sku"])
            )
        await db.execute("UPDATE reservations SET status = 'released' WHERE id = ?", (reservation_id,))
    return Undone(reservation_id, changed=True)


@step("orders.charge")
async def charge(ctx: StepContext, order_id: str, amount_cents: int) -> Receipt:
    """Charge the customer, once for each idempotency key."""
    if amount_cents <= 0:
        raise StepFailed(f"can't charge {amount_cents} cents", type="BadAmount", retryable=False)
    key = ctx.idempotency_key
    async with _shop().transaction() as db:
        done = await one(db, "SELECT amount_cents FROM charges WHERE id = ?", key)
        if done is not None:
            return Receipt(key, done["amount_cents"])
        await db.execute("INSERT INTO charges VALUES (?, ?, ?, 'charged')", (key, order_id, amount_cents))
    return Receipt(key, amount_cents)


@step("orders.refund")
async def refund(ctx: StepContext, charge_id: str) -> Undone:
    """Give a charge back."""
    return await _undo("charges", "charged", "refunded", charge_id)


@step("orders.ship")
async def ship(ctx: StepContext, order_id: str, address: Address) -> Shipment:
    """Hand the parcel to the carrier, who refuses some addresses for good."""
    if address.country.upper() not in SERVED or not address.street.strip():
        message = f"the carrier does not deliver to {address.street or '(no street)'}, {address.country}"
        raise StepFailed(
            message, type="AddressRefused", retryable=False, details={"country": address.country}
        )
    key = ctx.idempotency_key
    tracking = "WPA" + hashlib.sha256(key.encode()).hexdigest()[:10].upper()
    where = f"{address.name}, {address.street}, {address.city}, {address.country}"
    async with _shop().transaction() as db:
        await db.execute(
            "INSERT OR IGNORE INTO shipments VALUES (?, ?, ?, ?, 'shipped')", (key, order_id, tracking, where)
        )
    return Shipment(key, tracking)


@step("orders.cancel_shipment")
async def cancel_shipment(ctx: StepContext, shipment_id: str) -> Undone:
    """Call a parcel back."""
    return await _undo("shipments", "shipped", "cancelled", shipment_id)


@step("orders.notify")
async def notify(ctx: StepContext, order_id: str, message: str) -> None:
    """Tell the customer, once for each idempotency key."""
    async with _shop().transaction() as db:
        await db.execute(
            "INSERT OR IGNORE INTO notifications VALUES (?, ?, ?)", (ctx.idempotency_key, order_id, message)
        )


async def _undo(table: str, before: str, after: str, id: str) -> Undone:
    async with _shop().transaction() as db:
        # The table's name is one of ours, never an input.
        update = f"UPDATE {table} SET status = ? WHERE id = ? AND status = ?"  # noqa: S608
        async with db.execute(update, (after, id, before)) as cursor:
            return Undone(id, changed=cursor.rowcount == 1)


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [reserve, release, charge, refund, ship, cancel_shipment, notify]
