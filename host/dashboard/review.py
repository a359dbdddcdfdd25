"""Addresses of the review of a capture: what was recorded, and which of it is to be learnt from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from host.dashboard.acts import address, read_body, require_session
from host.dashboard.captures import MAX_PICTURES, Captures
from host.dashboard.desk import Desk
from host.dashboard.while_there import WhileThere
from protocol.errors import InputError

READ_AT_ONCE = 2  # so many pictures at most are in memory, whoever asks for more waits


def review_routes(desk: Desk) -> list[Route]:
    captures = Captures(desk.captures_dir)

    reading, writing = WhileThere(READ_AT_ONCE), WhileThere(1)

    async def names(request: Request) -> Response:
        return JSONResponse(await reading.do(request, list_captures))

    def list_captures(_: Callable[[], bool]) -> list[dict[str, object]]:
        return [{"name": name, "reviewed": captures.reviewed(name)} for name in captures.list_names()]

    async def pictures(request: Request) -> Response:
        shown = await reading.do(request, partial(captures.open, request.path_params["name"]))
        return JSONResponse([{"number": one.number, "part_id": one.part_id, "score": one.score} for one in shown])

    async def picture(request: Request) -> Response:
        name, number = request.path_params["name"], request.path_params["number"]
        return Response(await reading.do(request, partial(captures.jpeg, name, number)), media_type="image/jpeg")

    async def keep(request: Request) -> Response:
        who = require_session(desk, request)
        name, dropped = request.path_params["name"], read_dropped(await read_body(request))

        def write(_: Callable[[], bool]) -> int:
            entry = desk.audit.begin(who.user, address(request), "review", {"capture": name, "dropped": len(dropped)})
            kept = captures.keep(name, dropped)
            desk.audit.finish(entry, f"kept {kept}")
            return kept

        return JSONResponse({"kept": await writing.do(request, write)})

    return [
        Route("/api/captures", names),
        Route("/api/captures/{name}", pictures),
        Route("/api/captures/{name}/review", keep, methods=["POST"]),
        Route("/captures/{name}/{number:int}.jpg", picture),
    ]


def read_dropped(body: dict[str, object]) -> list[int]:
    """Raises: InputError."""
    dropped = body.get("dropped")
    if set(body) != {"dropped"} or not isinstance(dropped, list) or len(dropped) > MAX_PICTURES:
        raise InputError("dropped: give the numbers of the pictures to leave out")
    if not all(type(number) is int for number in dropped):
        raise InputError("dropped: give whole numbers")
    return dropped
