"""Addresses that only read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from host.dashboard.desk import Desk
from host.dashboard.evidence import find_evidence
from host.dashboard.history import Row
from host.dashboard.identity import is_part_key
from host.dashboard.pictures import SUFFIXES, Suffix
from host.dashboard.preview import PREVIEWED, preview_threshold
from host.dashboard.queries import MAX_ROWS, read_count, read_filter, read_number
from host.dashboard.table_file import as_csv
from protocol.errors import InputError, ManifestError
from protocol.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest, decode_manifest

SHOWN = 500  # parts of the score history
MAX_MODELS = 200
_MEDIA = {"jpg": "image/jpeg", "map": "application/octet-stream"}


def read_routes(desk: Desk) -> list[Route]:
    reads = Reads(desk)
    return [
        Route("/api/latest", reads.latest),
        Route("/api/parts", reads.search),
        Route("/api/parts/{key}", reads.detail),
        Route("/pictures/{key}.{suffix}", reads.picture),
        Route("/api/shifts", reads.shifts),
        Route("/api/preview", reads.preview),
        Route("/api/export.csv", reads.export),
        Route("/api/models", reads.models),
        Route("/api/drift.jpg", reads.drift),
        Route("/api/events", reads.events),
    ]


class Reads:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def latest(self, _request: Request) -> Response:
        return JSONResponse(self._with_pictures(self._desk.history.latest(SHOWN)))

    def search(self, request: Request) -> Response:
        query = request.query_params
        count = read_count(query, "count", 48, MAX_ROWS)
        before = read_count(query, "before", 2**53, 2**53)
        return JSONResponse(self._with_pictures(self._desk.history.search(read_filter(query), count, before)))

    def detail(self, request: Request) -> Response:
        key = request.path_params["key"]
        part = self._desk.history.part(key) if is_part_key(key) else None
        if part is None:
            return JSONResponse({"error": "no such part in the history"}, 404)
        kept: dict[str, Any] = {
            f"has_{suffix}": self._desk.pictures.path(key, suffix) is not None for suffix in SUFFIXES
        }
        return JSONResponse({**part, **kept})

    def picture(self, request: Request) -> Response:
        suffix = request.path_params["suffix"]
        content = self._desk.pictures.read(request.path_params["key"], suffix) if suffix in get_args(Suffix) else None
        if content is None:
            return JSONResponse({"error": "this picture is not, or no longer, kept"}, 404)
        return Response(content, media_type=_MEDIA[suffix])

    def shifts(self, _request: Request) -> Response:
        return JSONResponse(self._desk.history.shifts())

    def preview(self, request: Request) -> Response:
        threshold = read_number(request.query_params, "threshold")
        if threshold is None:
            raise InputError("threshold: give a number")
        # of the running model alone: the scores of another mean other things
        model_id = self._desk.station.model_id or self._desk.figures.summary()["model_id"]
        return JSONResponse(asdict(preview_threshold(self._desk.history.latest(PREVIEWED, model_id), threshold)))

    def export(self, request: Request) -> Response:
        rows = self._desk.history.walk(read_filter(request.query_params))
        headers = {"Content-Disposition": f'attachment; filename="beltsight-{self._desk.line}.csv"'}
        return StreamingResponse(as_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)

    def models(self, _request: Request) -> Response:
        return JSONResponse([_describe(manifest) for manifest in self._list_models()])

    def drift(self, _request: Request) -> Response:
        evidence = find_evidence(self._desk) if self._desk.station.drift.text else None
        if evidence is None:
            return JSONResponse({"error": "no pictures here: the station has them, in its folder of drifts"}, 404)
        return Response(evidence, media_type="image/jpeg")

    async def events(self, _request: Request) -> Response:
        if self._desk.hub.is_full:
            return JSONResponse({"error": "too many pages are open: close some"}, 503)
        return StreamingResponse(self._desk.hub.events(), media_type="text/event-stream")

    def _with_pictures(self, parts: list[Row]) -> list[Row]:
        return [{**part, "has_picture": self._desk.pictures.path(part["key"], "jpg") is not None} for part in parts]

    def _list_models(self) -> list[Manifest]:
        """Folders with a manifest that can be read; the station checks the rest before it takes one."""
        found = []
        for path in sorted(self._desk.models_dir.glob(f"*/{MANIFEST}"))[:MAX_MODELS]:
            try:
                with path.open("rb") as file:
                    found.append(decode_manifest(file.read(MAX_MANIFEST_BYTES + 1)))
            except (OSError, ManifestError):  # it is no model: there is nothing to choose
                continue
        return found


def _describe(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "product": manifest.product,
        "threshold": manifest.threshold.value,
        "lowest": manifest.map.lowest,
        "highest": manifest.map.highest,
        "figures": manifest.figures,
        "frame_px": manifest.preprocess.frame_px,
        "crop_px": manifest.preprocess.crop_px,
    }
