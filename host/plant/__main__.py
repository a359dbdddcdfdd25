"""The plant bridge: a site's lines in the words of the plant's systems.

beltsight plant --site plant --sparkplug Works1
beltsight plant --site plant --sparkplug Works1 --primary-host scada --commands
beltsight plant --site plant --home-assistant
beltsight plant --site plant --home-assistant --remove
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from host.aside import Aside
from host.broker_options import add_broker_options, broker_settings
from host.last_words import LastWords
from host.plant.edge_node import Names
from host.plant.home_assistant import DEFAULT_PREFIX, HomeAssistant
from host.plant.inbox import Arrival, Inbox
from host.plant.orders import Orders
from host.plant.primary_host import PrimaryHost
from host.plant.removal import remove_discovered
from host.plant.sparkplug import Sparkplug
from protocol.broker import BrokerSettings
from protocol.console import STDERR, STDOUT, occupy_standard_files
from protocol.errors import InputError, run_main
from protocol.streams import HEALTH, RESULT, STATE, VERDICT, client_id, is_topic_level
from protocol.strict import FieldError
from protocol.supervision import SUPERVISOR

TURN_S = 0.05
SILENT_S = 20.0  # of the loop, which waits for the plant's broker when it connects
AT_ONCE = 500  # arrivals between two turns
Dialect = Sparkplug | HomeAssistant


def main() -> int:
    occupy_standard_files()
    options = parse_options()
    SUPERVISOR.see_everything()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    broker = broker_settings(options)
    if options.remove:
        count = remove_discovered(broker, options.site, options.home_assistant_prefix)
        print(f"beltsight: {count} lines removed from Home Assistant", flush=True)
        return 0
    names = edge_node_names(options) if options.sparkplug else None
    with contextlib.ExitStack() as opened:
        inbox = open_inbox(options, broker, names)
        opened.callback(inbox.close)
        dialects = open_dialects(options, broker, inbox, names)
        for dialect in dialects:
            opened.callback(dialect.close)
        STDOUT.write(f"beltsight: bridge of site {options.site} runs")
        words = LastWords(lambda text: STDERR.write(f"beltsight: {text}"), stop.set)
        with SUPERVISOR.watch("bridge", silent_s=SILENT_S) as loop, SUPERVISOR.keep_watch(words.act):
            run_bridge(inbox, dialects, stop.is_set, loop.beat)
    return words.exit_code


def run_bridge(
    inbox: Inbox, dialects: Sequence[Dialect], stopping: Callable[[], bool], beat: Callable[[], None]
) -> None:
    has_sparkplug = any(isinstance(dialect, Sparkplug) for dialect in dialects)
    while not stopping():
        beat()
        for arrival in take_arrivals(inbox):
            for dialect in dialects:
                dialect.take(arrival)
            if arrival.leaf != VERDICT.name or not has_sparkplug:
                inbox.acknowledge(arrival)
        for dialect in dialects:
            dialect.turn()


def take_arrivals(inbox: Inbox) -> list[Arrival]:
    """What came, after `TURN_S` at the latest."""
    arrivals: list[Arrival] = []
    with contextlib.suppress(queue.Empty):
        arrivals.append(inbox.arrivals.get(timeout=TURN_S))
        while len(arrivals) < AT_ONCE:
            arrivals.append(inbox.arrivals.get_nowait())
    return arrivals


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="beltsight plant", description="Speak to the plant's systems for a site's lines, over MQTT."
    )
    add = parser.add_argument
    add("--site", required=True, help="whose lines: beltsight/SITE/…")
    add_broker_options(parser)
    add("--sparkplug", metavar="GROUP", help="be a Sparkplug B 3.0 edge node of this group, each line a device")
    add("--node", help="its edge node id (default: beltsight-SITE); no other node of the group may have it")
    add("--primary-host", default="", metavar="ID", help="say nothing while this host application is offline")
    add("--names-in-data", action="store_true", help="name each metric in data, for hosts that know no aliases")
    add("--folder", type=Path, default=Path("runs/plant"), help="for verdicts that are none (default: %(default)s)")
    add("--home-assistant", action="store_true", help="announce the lines to Home Assistant")
    add("--home-assistant-prefix", default=DEFAULT_PREFIX, help="its discovery prefix (default: %(default)s)")
    add("--remove", action="store_true", help="with --home-assistant: take the site's lines away again, and end")
    add("--commands", action="store_true", help="pass on the plant's pause, resume and threshold to the lines")
    options = parser.parse_args()
    if not is_topic_level(options.site):
        parser.error("--site must be the name in the lines' configuration")
    if not options.sparkplug and not options.home_assistant:
        parser.error("give --sparkplug GROUP, --home-assistant, or both")
    if options.remove and not options.home_assistant:
        parser.error("--remove goes with --home-assistant")
    return options


def open_inbox(options: argparse.Namespace, broker: BrokerSettings, names: Names | None) -> Inbox:
    """The broker keeps verdicts for us when we hand them on. Raises: InputError."""
    streams = [STATE, HEALTH]
    if names:
        streams += [VERDICT]
        streams += [RESULT] if options.commands else []
        ours = client_id("sparkplug", options.site, names.group, names.node)
    else:
        ours = client_id("home-assistant", options.site, options.home_assistant_prefix)
    return Inbox(broker, ours, options.site, streams, is_kept=names is not None)


def open_aside(folder: Path) -> Aside:
    """Raises: InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder} ({error.strerror}): name another --folder") from None
    return Aside(folder / "verdicts", "handed on")


def edge_node_names(options: argparse.Namespace) -> Names:
    """Raises: InputError."""
    try:
        return Names(options.sparkplug, options.node or f"beltsight-{options.site}")
    except FieldError as error:
        raise InputError(f"--sparkplug and --node: {error}") from None


def open_dialects(
    options: argparse.Namespace, broker: BrokerSettings, inbox: Inbox, names: Names | None
) -> list[Dialect]:
    dialects: list[Dialect] = []
    if names:
        orders = Orders(options.site) if options.commands else None
        host = PrimaryHost(options.primary_host)
        named = options.names_in_data
        aside = open_aside(options.folder)
        dialects.append(Sparkplug(names, broker, inbox, host=host, orders=orders, aside=aside, names_in_data=named))
    if options.home_assistant:
        prefix = options.home_assistant_prefix
        dialects.append(HomeAssistant(inbox, options.site, prefix, has_commands=options.commands))
    return dialects


if __name__ == "__main__":
    sys.exit(run_main(main))
