"""The page's program as one ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from host.dashboard.acts import Refused, act_routes
from host.dashboard.desk import Desk
from host.dashboard.guard import Guard
from host.dashboard.hub import SILENT_S
from host.dashboard.metrics import metrics_routes
from host.dashboard.reads import read_routes
from host.dashboard.review import review_routes
from host.dashboard.tables import first_line
from protocol.errors import InputError
from protocol.supervision import SUPERVISOR, Supervisor

PAGE = Path(__file__).resolve().parent / "page"


def make_app(
    desk: Desk, names: Sequence[str], stopping: Callable[[], bool], supervisor: Supervisor = SUPERVISOR
) -> Starlette:
    # subtle: the table of the system may call scripts text/plain, which browsers then refuse
    mimetypes.add_type("text/javascript", ".js")

    @contextlib.asynccontextmanager
    async def live(_app: Starlette) -> AsyncIterator[None]:
        _, ticking = supervisor.start_task("live view", partial(desk.hub.run, stopping), silent_s=SILENT_S)
        yield
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking

    async def page(_request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    routes: list[Route | Mount] = [
        Route("/", page),
        *read_routes(desk),
        *act_routes(desk),
        *review_routes(desk),
        *metrics_routes(desk),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={InputError: refuse, Refused: refuse, SQLAlchemyError: no_database},
        lifespan=live,
    )
    app.router.redirect_slashes = False  # an address is one or none
    return app


async def refuse(_request: Request, error: Exception) -> Response:
    status, headers = (error.status, error.headers) if isinstance(error, Refused) else (400, None)
    return JSONResponse({"error": str(error)}, status, headers)


async def no_database(_request: Request, error: Exception) -> Response:
    reason = first_line(error) if isinstance(error, SQLAlchemyError) else ""
    return JSONResponse({"error": f"the database does not answer ({reason}): nothing was done"}, 503)
