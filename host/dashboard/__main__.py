"""The operator's page: what the line does, what it rejected and why.

beltsight dashboard --config board/line.toml
beltsight dashboard --config board/line.toml --listen 0.0.0.0:8443 --certificate page.pem --key page.key
beltsight dashboard --set-password anna
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import uvicorn
from sqlalchemy import URL

from board.config import LineConfig, load_config
from board.sinks.capture import FOLDER as CAPTURES
from host.aside import Aside
from host.dashboard.app import make_app
from host.dashboard.audit import Audit
from host.dashboard.database import database_url
from host.dashboard.desk import Desk, summarize
from host.dashboard.figures import KEPT, Figures
from host.dashboard.history import History
from host.dashboard.hub import Hub
from host.dashboard.identity import read_name
from host.dashboard.link import Link
from host.dashboard.looker import Looker
from host.dashboard.passwords import Credentials, require_passwords, set_password
from host.dashboard.pictures import PictureStore
from host.dashboard.retention import Retention
from host.dashboard.reversals import Reversals
from host.dashboard.sessions import Guesses, Sessions
from host.dashboard.shifts import parse_shifts
from host.dashboard.station import Station
from host.dashboard.tables import open_database
from host.dashboard.writer import Writer
from host.last_words import LastWords
from protocol.address import split_address
from protocol.console import STDERR, STDOUT, occupy_standard_files
from protocol.errors import InputError, run_main
from protocol.keys import is_loopback, require_private
from protocol.supervision import SUPERVISOR

EXAMPLE_PORT = 8080
STOCK_WITHIN_S = 30.0  # a hundred thousand pictures take four
MAX_CONNECTIONS = 200
MAX_HEADER_BYTES = 32 << 10


def main() -> int:
    occupy_standard_files()
    options = parse_options()
    if options.set_password is not None:
        set_password(options.passwords, options.set_password, ask_password())
        print(f"beltsight: {options.set_password} may act, by {options.passwords}")
        return 0
    config = load_config(options.config)
    SUPERVISOR.see_everything()
    return serve(options, config)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="beltsight dashboard", description="The operator's page of one line, in a browser."
    )
    add = parser.add_argument
    line = Path("board/line.toml")
    add("--config", type=Path, default=line, help="the line's TOML file, or a copy of it (default: %(default)s)")
    add("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where the page is (default: %(default)s)")
    add("--certificate", type=Path, help="serve over TLS with this certificate, in PEM form")
    add("--key", type=Path, help="the certificate's key")
    add("--plain-anywhere", action="store_true", help="without TLS beyond this machine: passwords can be overheard")
    add("--name", action="append", default=[], help="what browsers call this host, beside its address and own name")
    add("--tap", metavar="ENDPOINT", help="where the board shows its parts (default: as in the line's file)")
    add("--folder", type=Path, default=Path("runs/dashboard"), help="history and pictures (default: %(default)s)")
    add("--database", metavar="URL", help="history in PostgreSQL: postgresql+psycopg://user@host/name")
    add("--database-password", type=Path, metavar="FILE", help="its password, on the first line; mode 0600")
    add("--captures", type=Path, help="recorded good parts to review (default: the recorder's folder)")
    add("--passwords", type=Path, default=Path("runs/passwords"), help="who may act (default: %(default)s)")
    add("--set-password", metavar="NAME", help="add or change a user of that file, and end")
    add("--shifts", default="06:00,14:00,22:00", help="when shifts begin, local time (default: %(default)s)")
    add("--keep-days", type=float, default=365.0, help="of the history; totals stay (default: %(default)g)")
    add("--history-mb", type=float, default=20_000.0, help="of the history, if days take more (default: %(default)g)")
    add("--rejected-mb", type=float, default=1000.0, help="for pictures of rejected parts (default: %(default)g)")
    add("--good-mb", type=float, default=100.0, help="for pictures of the last good parts (default: %(default)g)")
    options = parser.parse_args()
    check_options(options)
    return options


def check_options(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    sizes = ("keep_days", "history_mb", "rejected_mb", "good_mb")
    for size in sizes:
        if not 0 < (value := getattr(options, size)) <= 1e7:
            raise InputError(f"--{size.replace('_', '-')} is {value:g}: give a number above 0, at most 10000000")
    if (options.certificate is None) != (options.key is None):
        raise InputError("--certificate and --key belong together")
    host, _ = split_address(options.listen, EXAMPLE_PORT)
    if not (options.certificate or options.plain_anywhere or is_loopback(f"tcp://{options.listen}")):
        raise InputError(f"{host} can be reached by others: give --certificate and --key, or --plain-anywhere")
    if options.key:
        require_secret(options.certificate, options.key)
    parse_shifts(options.shifts)


def require_secret(certificate: Path, key: Path) -> None:
    """Raises: InputError for a key that is not there, or that others may read."""
    try:
        require_private(key, "600")
    except OSError as error:
        raise InputError(f"{certificate} with {key}: {error.strerror}: give both in PEM form") from None


def ask_password() -> str:
    """Twice at a terminal; else the first line of the input. Raises: InputError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise InputError("these were two different passwords: begin again")
    return password


def serve(options: argparse.Namespace, config: LineConfig) -> int:
    """Until SIGTERM or Ctrl-C, or until it cannot go on: the exit code. Raises: InputError."""
    require_passwords(options.passwords)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(listen(options.listen))
        server: list[uvicorn.Server] = []
        desk = open_desk(opened, options, config)
        app = make_app(desk, options.name, lambda: bool(server) and server[0].should_exit)
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=3,
            ws="none",
            http="h11",
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
        try:
            settings.load()
        except OSError as error:  # ssl.SSLError is one
            raise InputError(f"{options.certificate} with {options.key}: {error}: give both in PEM form") from None
        server.append(uvicorn.Server(settings))
        scheme = "https" if options.certificate else "http"
        STDOUT.write(f"beltsight: the page of line {config.line} is at {scheme}://{options.listen}/")
        # subtle: uvicorn raises the signal that ended it again, which must not keep us from closing what is open
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        words = LastWords(lambda text: STDERR.write(f"beltsight: {text}"), partial(end_server, server[0]))
        with SUPERVISOR.keep_watch(words.act):
            server[0].run(sockets=[listener])
        return words.exit_code


def end_server(server: uvicorn.Server) -> None:
    server.should_exit = True


def open_desk(opened: contextlib.ExitStack, options: argparse.Namespace, config: LineConfig) -> Desk:
    """Raises: InputError."""
    name = read_name(options.folder, config.site, config.line)
    pictures = PictureStore(options.folder / "pictures", int(options.rejected_mb * 1e6), int(options.good_mb * 1e6))
    opened.callback(partial(pictures.await_stock, STOCK_WITHIN_S))
    engine = open_database(history_url(options))
    opened.callback(engine.dispose)
    history = History(engine, config.site, config.line, parse_shifts(options.shifts))
    station, figures, speaker = Station(), Figures(), (config.site, config.line)
    station.own_trouble = own_trouble
    audit = Audit(engine)
    reversals = Reversals(audit)
    figures.recall(history.latest(KEPT))

    def sum_up() -> dict[str, object]:
        trouble = writer.trouble or str(SUPERVISOR.trouble() or "")
        return summarize(history, station, figures, reversals, trouble=trouble, speaker=speaker)

    hub = Hub(
        sum_up,
        lambda key: pictures.path(key, "jpg") is not None,
    )

    def show(parts: list[dict[str, object]]) -> None:
        figures.note(parts)
        hub.show(parts)

    aside = Aside(options.folder / "history", "put into the history")
    keep_bytes = int(options.history_mb * 1e6)
    retention = Retention(engine, speaker, keep_days=options.keep_days, keep_bytes=keep_bytes)
    writer = Writer(history, retention, aside, show)
    opened.callback(writer.close)
    link = Link(config.broker, speaker, station, writer, name=name, aside=aside, hear=reversals.hear)
    opened.callback(link.close)
    endpoint = local_endpoint(options.tap or config.tap.endpoint)
    looker = Looker(endpoint, config.site, config.line, pictures) if endpoint else None
    if looker:
        opened.callback(looker.close)
    return Desk(
        site=config.site,
        line=config.line,
        models_dir=config.models_dir,
        captures_dir=options.captures or config.recorder.folder / CAPTURES,
        drift_dir=config.drift.folder,
        passwords=options.passwords,
        is_encrypted=options.certificate is not None,
        history=history,
        audit=audit,
        reversals=reversals,
        pictures=pictures,
        station=station,
        figures=figures,
        writer=writer,
        aside=aside,
        retention=retention,
        link=link,
        looker=looker,
        hub=hub,
        sessions=Sessions(credential=Credentials(options.passwords).of),
        guesses=Guesses(),
    )


def history_url(options: argparse.Namespace) -> URL:
    """Raises: InputError."""
    if options.database:
        return database_url(options.database, options.database_password)
    return URL.create("sqlite", database=str(options.folder / "history.sqlite"))


def own_trouble() -> str:
    """What the page cannot do without, and has ended or hangs."""
    trouble = SUPERVISOR.trouble()
    return str(trouble) if trouble and trouble.is_needed else ""


def local_endpoint(endpoint: str) -> str:
    """Where to connect to what the board binds on this machine, as its file says."""
    return endpoint.replace("://*:", "://127.0.0.1:").replace("://0.0.0.0:", "://127.0.0.1:")


def listen(text: str) -> socket.socket:
    """Raises: InputError."""
    host, port = split_address(text, EXAMPLE_PORT)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(128)
    except OSError as error:
        raise InputError(f"cannot listen at {text} ({error.strerror}): choose another --listen") from None
    return listener


if __name__ == "__main__":
    sys.exit(run_main(main))
