"""The verbs of ``workflow.api.<tenant>.<verb>``: JSON in, JSON out, whatever carries it.

Every answer has ``ok``. An error is an answer, too: ``{"ok": false, "error": {"code", "message",
"problems"}}``. Every verb may be repeated. What they do is in the modules beside this one, by subject.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from wpa.engine.api_asks import AskVerbs
from wpa.engine.api_common import Body, Handler
from wpa.engine.api_definitions import DefinitionVerbs, Follow
from wpa.engine.api_executions import ExecutionVerbs
from wpa.engine.api_fleet import FleetVerbs, Roster, Schedules
from wpa.engine.api_letters import LetterVerbs
from wpa.engine.api_lists import ListVerbs
from wpa.engine.pages import fitting
from wpa.engine.services import Services
from wpa.errors import DefinitionError, OverLimit, PlatformError, TaskRejected, TooLarge
from wpa.model.codec import not_json
from wpa.model.ids import check_tenant, check_token
from wpa.model.steptype import StepSignature

__all__ = ["Api", "Roster", "Schedules"]

log = logging.getLogger("wpa.api")

TAKES_A_TASK: Final = "start"
"""The verb whose request is a task as it is published: the door reads its bytes."""
SHOW_LETTERS: Final = ("dlq_list", "dlq_show")
"""Letters there are of those, too, who can be no tenants: that is why they were rejected."""


class Api:
    """Answers requests. Stateless: any worker may answer any of them.

    Args:
        services: what the worker's drivers share.
        signatures: the step types that definitions are checked against.
        new_id: makes ids for executions and signals that come without.
        follow: sees to it that a message that comes after a deploy's answer finds a listener.
        schedules: what is started by itself; without it, the verbs about it are refused.
        roster: says which workers there are; without it, that verb is refused.
    """

    def __init__(
        self,
        services: Services,
        signatures: Mapping[str, StepSignature],
        new_id: Callable[[], str],
        *,
        follow: Follow | None = None,
        schedules: Schedules | None = None,
        roster: Roster | None = None,
    ) -> None:
        self._services = services
        self._verbs: dict[str, Handler] = {
            **ExecutionVerbs(services, new_id).verbs(),
            **ListVerbs(services).verbs(),
            **AskVerbs(services, new_id).verbs(),
            **DefinitionVerbs(services, signatures, schedules, follow).verbs(),
            **FleetVerbs(schedules, roster, services.limits.answer_bytes_max).verbs(),
            **LetterVerbs(services).verbs(),
        }

    @property
    def verbs(self) -> list[str]:
        """All that can be asked."""
        return list(self._verbs)

    async def handle(self, tenant: str, verb: str, data: bytes) -> bytes:
        """Answer one request. Never raises."""
        try:
            check = check_token if verb in SHOW_LETTERS else check_tenant
            check(tenant)
            body = await self._verbs[verb](tenant, self._decode(verb, data))
            return msgspec.json.encode({"ok": True, **body})
        except DefinitionError as error:
            rejected = TaskRejected("invalid_definition", str(error.problems[0]), error.problems)
            return self._refuse(rejected.as_dict())
        except TaskRejected as error:
            return self._refuse(error.as_dict())
        except TooLarge as error:
            return self._refuse(OverLimit(str(error)).as_dict())
        except PlatformError as error:
            return self._refuse({"code": "unavailable", "message": f"{error}; try again"})
        except Exception as error:
            log.exception("workflow.api.%s.%s", tenant, verb)
            message = f"an error of the engine's own ({type(error).__name__}); the worker's log has it"
            return self._refuse({"code": "internal", "message": message})

    def _decode(self, verb: str, data: bytes) -> Body:
        if verb == TAKES_A_TASK:
            return {"raw": data}
        limit = self._services.limits.task_bytes_max
        if len(data) > limit:
            raise TaskRejected("over_limit", f"a request of {len(data)} bytes; the most is {limit}")
        try:
            body = msgspec.json.decode(data or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise not_json(data, error, "request") from None
        if not isinstance(body, dict):
            raise TaskRejected("bad_request", "the request must be a JSON object")
        return body

    def _refuse(self, error: Body) -> bytes:
        """Why a request is not carried out; of very many problems, the first ones."""
        shown = fitting(error, self._services.limits.answer_bytes_max)
        return msgspec.json.encode({"ok": False, "error": shown})
