"""What the shapes of all verbs share: success, refusal, and the names that recur."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "After",
    "ApiError",
    "ApiProblem",
    "Before",
    "Cut",
    "ExecutionRequest",
    "LookedBack",
    "Ok",
    "PageReply",
    "Refusal",
]

Ok = Annotated[Literal[True], Meta(description="the request was carried out")]


Before = Annotated[int, Meta(ge=0, description="`next` of the last answer: look further back from there")]

After = Annotated[str, Meta(description="`next` of the last answer: go on there")]
Cut = Annotated[
    int,
    Meta(
        description="its bytes, where they are more than an answer has room for: long texts in it are cut to "
        'their beginning, long lists to their first items; `{"$omitted": {"size"}}` stands for objects'
    ),
]


class PageReply(msgspec.Struct, frozen=True, kw_only=True):
    """How far an answer had room: to the end, or to where the next page goes on."""

    more: Annotated[bool, Meta(description="there are further rows: ask again, `after` the `next`")]
    next: Annotated[str, Meta(description="where the next page goes on; empty: there is none")]


class LookedBack(msgspec.Struct, frozen=True, kw_only=True):
    """How far back a look over all executions has come: far enough, or as far as one request may."""

    more: Annotated[
        bool, Meta(description="there are executions that were not looked at: ask again, `before` the `next`")
    ]
    next: Annotated[int, Meta(description="who was active there or later was looked at; 0: all were")]
    looked_at: Annotated[int, Meta(description="so many executions, for this request")]


class ApiProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a document: where, what, and what to do about it."""

    path: Annotated[str, Meta(description="a JSON path", examples=["$.steps[2].with.amount"])]
    message: str
    hint: str = ""


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused."""

    code: Annotated[
        str,
        Meta(
            description="stable, machine-readable; `unavailable`: nothing is wrong, try again",
            examples=[
                "not_json",
                "invalid_name",
                "over_limit",
                "unknown_workflow",
                "conflict",
                "unavailable",
            ],
        ),
    ]
    message: str
    problems: list[ApiProblem] | UnsetType = UNSET
    cut: Cut | UnsetType = UNSET


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that was not carried out."""

    ok: Literal[False]
    error: ApiError


class ExecutionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Names an execution."""

    execution_id: str
