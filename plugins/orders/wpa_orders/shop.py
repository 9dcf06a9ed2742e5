"""The shop: a real SQLite database, written so that a step may run twice and change things once.

Every row that a step writes is keyed by the step's idempotency key. A second run finds the row and gives
the same answer. A compensation finds what it undoes by id, and undoing twice, or undoing what never took
effect, changes nothing. Each step is one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

__all__ = ["Shop", "inspect", "seed"]

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS products (
    sku TEXT PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
    stock INTEGER NOT NULL CHECK (stock >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, total_cents INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('reserved', 'released'))
) STRICT;
CREATE TABLE IF NOT EXISTS reserved_items (
    reservation_id TEXT NOT NULL REFERENCES reservations (id), sku TEXT NOT NULL REFERENCES products (sku),
    quantity INTEGER NOT NULL CHECK (quantity > 0), PRIMARY KEY (reservation_id, sku)
) STRICT;
CREATE TABLE IF NOT EXISTS charges (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    status TEXT NOT NULL CHECK (status IN ('charged', 'refunded'))
) STRICT;
CREATE TABLE IF NOT EXISTS shipments (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, tracking TEXT NOT NULL, address TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('shipped', 'cancelled'))
) STRICT;
CREATE TABLE IF NOT EXISTS notifications (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, message TEXT NOT NULL
) STRICT;
"""

PRODUCTS = (
    ("tea", "Green tea, 100 g", 895, 40),
    ("pot", "Cast-iron pot", 4990, 12),
    ("cup", "Cup", 1250, 60),
)
BUSY_TIMEOUT_MS = 10_000


class Shop:
    """The database at ``path``; its tables are made when they are missing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """A write transaction: all of it is kept, or nothing."""
        async with aiosqlite.connect(self._path, isolation_level=None) as db:
            db.row_factory = sqlite3.Row
            await db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            await db.execute("PRAGMA foreign_keys = ON")
            await self._prepare(db)
            await db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                await db.execute("ROLLBACK")
                raise
            await db.execute("COMMIT")

    @staticmethod
    async def _prepare(db: aiosqlite.Connection) -> None:
        found = await one(db, "SELECT count(*) AS n FROM sqlite_master WHERE name = 'notifications'")
        if found is None or found["n"] == 0:
            await db.executescript(SCHEMA)


async def one(db: aiosqlite.Connection, query: str, *values: Any) -> sqlite3.Row | None:
    """The first row of a query."""
    async with db.execute(query, values) as cursor:
        return await cursor.fetchone()


async def every(db: aiosqlite.Connection, query: str, *values: Any) -> list[sqlite3.Row]:
    """All rows of a query."""
    async with db.execute(query, values) as cursor:
        return list(await cursor.fetchall())


def seed(path: Path, stock: Mapping[str, int] | None = None) -> None:
    """Make the tables and fill the shelves; products that are there already keep their stock."""
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA)
        rows = [(sku, name, price, (stock or {}).get(sku, count)) for sku, name, price, count in PRODUCTS]
        db.executemany("INSERT OR IGNORE INTO products VALUES (?, ?, ?, ?)", rows)
    db.close()


def inspect(path: Path) -> dict[str, Any]:
    """What the shop holds: stock by product, and what of each kind is in force."""
    db = sqlite3.connect(path)
    try:

        def count(query: str) -> int:
            return int(db.execute(query).fetchone()[0])

        return {
            "stock": dict(db.execute("SELECT sku, stock FROM products ORDER BY sku").fetchall()),
            "reserved": count("SELECT count(*) FROM reservations WHERE status = 'reserved'"),
            "charged_cents": count(
                "SELECT coalesce(sum(amount_cents), 0) FROM charges WHERE status = 'charged'"
            ),
            "shipped": count("SELECT count(*) FROM shipments WHERE status = 'shipped'"),
            "notified": count("SELECT count(*) FROM notifications"),
        }
    finally:
        db.close()
