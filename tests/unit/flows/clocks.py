"""A flow's module as people write them: every way to reach a clock, and chance."""

# ruff: noqa: DTZ001, DTZ003, DTZ005, DTZ006, DTZ007, DTZ011, DTZ901

from __future__ import annotations

import asyncio
import datetime
import os
import random
import secrets
import time
import uuid
from dataclasses import dataclass, field
from datetime import date
from datetime import datetime as moment
from random import Random, SystemRandom, randint
from secrets import token_hex
from time import time as clock
from typing import Any
from uuid import uuid4

import msgspec
from pydantic import BaseModel, Field

from tests.unit.flows import helpers
from wpa.flows import call, flow, now


@dataclass
class Made:
    id: uuid.UUID = field(default_factory=uuid4)
    at: float = field(default_factory=time.time)


class Model(BaseModel):
    at: moment = Field(default_factory=moment.now)
    id: uuid.UUID = Field(default_factory=uuid.uuid4)


class Order(msgspec.Struct):
    on: date
    at: moment


def looks(when: float = 0, timer: Any = time.monotonic) -> dict[str, Any]:
    """Everything that a flow may look at; called inside flows and outside of them."""
    return {
        "time": time.time(),
        "clock": clock(),
        "ns": time.time_ns(),
        "monotonic": time.monotonic(),
        "perf": time.perf_counter(),
        "timer": timer(),
        "gmtime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "localtime": time.strftime("%Y-%m-%d %H:%M:%S"),
        "then": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time())),
        "now": datetime.datetime.now().isoformat(),
        "aware": moment.now(datetime.UTC).isoformat(),
        "utcnow": moment.utcnow().isoformat(),
        "today": date.today().isoformat(),
        "datetime today": datetime.date.today().isoformat(),
        "helper": helpers.stamp(),
        "made": Made().at,
        "model": Model().at.isoformat(),
    }


def draws() -> dict[str, Any]:
    """Everything that is different each time outside of a flow, and the same in each replay of one."""
    shuffled = list(range(20))
    random.shuffle(shuffled)
    return {
        "uuid4": str(uuid.uuid4()),
        "uuid4 by name": str(uuid4()),
        "uuid1": str(uuid.uuid1()),
        "random": random.random(),
        "randint": randint(0, 1 << 60),
        "choices": random.choices(range(1000), k=5),
        "shuffled": shuffled,
        "Random": Random().random(),
        "SystemRandom": SystemRandom().random(),
        "secrets": secrets.token_urlsafe(),
        "token_hex": token_hex(8),
        "below": secrets.randbelow(1 << 60),
        "urandom": os.urandom(8).hex(),
        "helper": helpers.draw(),
        "made": str(Made().id),
        "model": str(Model().id),
    }


@flow("looker")
async def looker(order: Order | None = None) -> list[Any]:
    first = looks()
    await asyncio.sleep(60)
    return [first, looks(), now().isoformat()]


@flow("teller")
async def teller() -> list[Any]:
    return [time.mktime(time.localtime(3600)), time.ctime(3600)]


@flow("drawer")
async def drawer() -> list[Any]:
    first = draws()
    done = await call("a.do", **first)
    return [first, draws(), done.inputs]


@flow("classes")
async def classes() -> list[Any]:
    made = moment(2026, 1, 2, 3, 4, 5)
    return [
        isinstance(made, moment),
        isinstance(made, datetime.datetime),
        issubclass(moment, date),
        isinstance(date(2026, 1, 2), moment),
        moment.fromisoformat("2026-01-02T03:04:05").isoformat(),
        moment.strptime("2026", "%Y").year,
        moment.combine(date(2026, 1, 1), datetime.time(5)).isoformat(),
        moment.fromtimestamp(0).isoformat(),
        (moment.max - moment.min).days,
        datetime.timedelta(days=1).total_seconds(),
        msgspec.convert({"on": "2026-01-02", "at": "2026-01-02T03:04:05"}, Order).at.isoformat(),
        Model.model_validate({"at": "2026-01-02T03:04:05"}).at.isoformat(),
        Random(7).random() == Random(7).random(),
        isinstance(Random(1), Random),
        uuid.UUID(int=5).hex[-1],
        time.struct_time.__name__,
        os.path.join("a", "b"),
    ]
