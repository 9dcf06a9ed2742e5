"""``order.json`` as a flow, with a second address to ship to."""

import asyncio
from dataclasses import dataclass

from wpa_orders import Address, Item, cancel_shipment, charge, notify, refund, release, reserve, ship

from wpa import Retry, StepFailed, call, flow, saga

QUICKLY = Retry(max_attempts=4, initial_ms=200, max_ms=5_000)
DELIVERY_CENTS = 490


@dataclass
class Placed:
    """What the customer is told."""

    order_id: str
    total_cents: int
    tracking: str


@flow("order-flow")
async def order(
    order_id: str,
    items: list[Item],
    address: Address,
    pickup: Address | None = None,
    reconsider_s: float = 0.0,
) -> Placed:
    """Deliver to the address, for a fee; if the carrier refuses it, to the pick-up point, for free.

    What is called with ``undo`` is undone, last first, when an exception leaves the saga, or the flow.
    """
    stock = await call(reserve, order_id, items, undo=release, retry=QUICKLY)
    paid = await call(charge, order_id, stock.total_cents, undo=refund, retry=QUICKLY)
    await asyncio.sleep(reconsider_s)
    fee_cents = DELIVERY_CENTS
    try:
        async with saga():
            await call(charge, order_id, fee_cents, step_name="delivery_fee", undo=refund, retry=QUICKLY)
            parcel = await call(ship, order_id, address, undo=cancel_shipment, retry=QUICKLY)
    except StepFailed as error:
        if error.type != "AddressRefused" or pickup is None:
            raise
        fee_cents = 0
        parcel = await call(ship, order_id, pickup, undo=cancel_shipment, retry=QUICKLY)
    await call(notify, order_id, f"Order {order_id} is on its way: {parcel.tracking}")
    return Placed(order_id, paid.amount_cents + fee_cents, parcel.tracking)
