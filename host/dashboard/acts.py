"""Addresses that change something: log in and out, and orders to the line. Each order needs a session and its token,
comes from our own page, and stands in the audit log before it is sent.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timezone
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from host.dashboard.desk import Desk
from host.dashboard.link import NoAnswer
from host.dashboard.passwords import is_password
from host.dashboard.sessions import LASTS_S, Session
from host.dashboard.turns import Turns
from protocol.commands import ORDERS, Order, make_order
from protocol.errors import InputError
from protocol.strict import FieldError

COOKIE = "beltsight"
TOKEN_HEADER = "X-Beltsight-Token"  # noqa: S105 - its name
EXPIRES_S = 20.0
MAX_BODY_BYTES = 64 << 10
AUDIT_SHOWN = 200

Fields = dict[str, Any]


class Refused(Exception):  # noqa: N818 - with its status
    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


def make_own_order(name: str, fields: Fields) -> Order:
    """With an id of its own, and not for long. Raises: InputError."""
    if {"id", "expires"} & set(fields):
        raise InputError("id and expires are chosen here: leave them out")
    try:
        return make_order(name, new_id(), EXPIRES_S, fields)
    except FieldError as error:
        raise InputError(str(error)) from None


def new_id() -> str:
    """Says when, for it becomes the name of a capture: 20260101-080000-5f3a09."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def act_routes(desk: Desk) -> list[Route]:
    turns = Turns()

    async def session(request: Request) -> Response:
        found = desk.sessions.find(request.cookies.get(COOKIE, ""))
        return JSONResponse({"user": found.user, "token": found.token} if found else {"user": "", "token": ""})

    async def login(request: Request) -> Response:
        require_own_page(request)
        body = await read_body(request)
        where = address(request)
        wait_s = desk.guesses.enter(where)
        if wait_s > 0:
            text = f"too many logins: wait {wait_s:.0f} s"
            raise Refused(429, text, {"Retry-After": f"{wait_s + 1:.0f}"})
        response = None
        try:
            response = await run_in_threadpool(log_in, desk, where, body)
        finally:
            desk.guesses.leave(where, is_right=response is not None)
        return response

    async def logout(request: Request) -> Response:
        require_session(desk, request)
        desk.sessions.end(request.cookies.get(COOKIE, ""))
        response = JSONResponse({"user": "", "token": ""})
        response.delete_cookie(COOKIE)
        return response

    async def order(request: Request) -> Response:
        who = require_session(desk, request)
        name = request.path_params["name"]
        if name not in ORDERS:
            return JSONResponse({"error": f"there are {', '.join(ORDERS)}"}, 404)
        fields = await read_body(request)
        why_not = turns.begin(who.user)
        if why_not:
            raise Refused(429, why_not, {"Retry-After": "2"})
        try:
            return await run_in_threadpool(send_order, desk, who.user, address(request), name, fields)
        finally:
            turns.end(who.user)

    async def audit(request: Request) -> Response:
        require_session(desk, request, needs_token=False)
        return JSONResponse(await run_in_threadpool(desk.audit.latest, AUDIT_SHOWN))

    return [
        Route("/api/session", session),
        Route("/api/login", login, methods=["POST"]),
        Route("/api/logout", logout, methods=["POST"]),
        Route("/api/orders/{name}", order, methods=["POST"]),
        Route("/api/audit", audit),
    ]


def log_in(desk: Desk, where: str, body: Fields) -> Response:
    """Raises: Refused, InputError, SQLAlchemyError."""
    user, password = body.get("user"), body.get("password")
    if not isinstance(user, str) or not isinstance(password, str) or set(body) != {"user", "password"}:
        raise InputError("give user and password")
    known = user[:32] if user.isprintable() else ""
    if not is_password(desk.passwords, user, password):
        desk.audit.finish(desk.audit.begin(known, where, "login", {}), "refused")
        raise Refused(403, "name or password is wrong; `beltsight dashboard --set-password NAME` makes one")
    desk.audit.finish(desk.audit.begin(known, where, "login", {}), "done")
    cookie = desk.sessions.begin(user)
    found = desk.sessions.find(cookie)
    response = JSONResponse({"user": user, "token": found.token if found else ""})
    response.set_cookie(
        COOKIE, cookie, max_age=int(LASTS_S), httponly=True, samesite="strict", secure=desk.is_encrypted
    )
    return response


def send_order(desk: Desk, user: str, where: str, name: str, fields: Fields) -> Response:
    """Raises: InputError; SQLAlchemyError when it cannot be written down. Then nothing is sent."""
    order = make_own_order(name, fields)
    entry = desk.audit.begin(user, where, name, fields)
    desk.reversals.expect(order.id, entry)
    try:
        answer = desk.link.send(name, order)
    except NoAnswer as error:
        note_outcome(desk, entry, f"no answer: {error}")
        return JSONResponse({"error": str(error)}, 504)
    note_outcome(desk, entry, answer.reason or "done" if answer.obeyed else f"refused: {answer.reason}")
    if not answer.obeyed:
        return JSONResponse({"error": f"the line refused: {answer.reason[:500]}"}, 409)
    return JSONResponse({"done": name})


def note_outcome(desk: Desk, entry: int, outcome: str) -> None:
    """An order that was sent is answered, even where its outcome cannot be written: it stays "asked"."""
    try:
        desk.audit.finish(entry, outcome)
    except SQLAlchemyError:
        return


def require_session(desk: Desk, request: Request, *, needs_token: bool = True) -> Session:
    """Raises: Refused."""
    found = desk.sessions.find(request.cookies.get(COOKIE, ""))
    if found is None:
        raise Refused(401, "log in first")
    if needs_token:
        require_own_page(request)
        if not found.accepts(request.headers.get(TOKEN_HEADER, "")):
            raise Refused(403, "the order does not come from this page: load it again")
    return found


def require_own_page(request: Request) -> None:
    """Raises: Refused for what another site's page sends."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("Host"):
        raise Refused(403, "the order comes from another page")
    if request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
        raise Refused(415, "send application/json")


async def read_body(request: Request) -> Fields:
    """Raises: InputError, Refused."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise Refused(413, f"at most {MAX_BODY_BYTES} bytes are read")
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise InputError("the body is no table of keys")
    return body


def address(request: Request) -> str:
    return request.client.host if request.client else ""
