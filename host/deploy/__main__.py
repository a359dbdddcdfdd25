"""Bring models and configurations to stations: `beltsight deploy`, `rollback`, `fleet`.

beltsight deploy models/orange-256 --to plant/line1 --serve 192.168.2.1      the station fetches it from here
beltsight deploy models/orange-256 --to plant/line1 --ssh root@192.168.2.99  it is copied there
beltsight deploy --config line.toml --to plant/line1 --ssh root@192.168.2.99
beltsight rollback --to plant/line1
beltsight fleet
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from rich.console import Console

from host.broker_options import add_broker_options, broker_settings
from host.deploy.fleet import draw_fleet, gather
from host.deploy.lines import Lines
from host.deploy.serving import serve_package
from host.deploy.ssh import Remote, copy_package, install_config, restore_config
from protocol.address import parse_address
from protocol.errors import InputError, run_main
from protocol.fitness import require_fit
from protocol.manifest import Package, load_package
from protocol.reports import JUDGING, LineState
from protocol.signing import SIGNATURE
from protocol.streams import is_topic_level

CHANGED_WITHIN_S = 360.0  # fetched, verified, self-tested
MODELS_ON_CARD = "/var/lib/beltsight/models"
CONFIG_ON_CARD = "/opt/beltsight/current/config/line.toml"
RESTART = "systemctl restart beltsight"
WIDTH = 160  # of a table that goes into a file


def main() -> int:
    options = parse_options()
    broker = broker_settings(options)
    if options.task == "fleet":
        with Lines(broker, options.site) as lines:
            Console(width=160 if not sys.stdout.isatty() else None).print(
                draw_fleet(gather(lines.reports(options.wait)))
            )
        return 0
    for line in options.to:
        require_line(line)
        with Lines(broker, line.partition("/")[0]) as lines:
            if options.task == "rollback":
                change(lines, line, "rollback", options.watch)
            elif options.config:
                deploy_config(lines, line, options)
            else:
                deploy_model(lines, line, options)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="beltsight", description="Bring models to stations, and see what they run.")
    tasks = parser.add_subparsers(dest="task", required=True)
    deploy = tasks.add_parser("deploy", help="have lines judge with a model, or run with a configuration")
    deploy.add_argument("model", type=Path, nargs="?", help="folder of a model package")
    deploy.add_argument("--config", type=Path, help="a line.toml instead of a model")
    deploy.add_argument("--ssh", metavar="USER@HOST", help="copy it there first; without, the station fetches it")
    deploy.add_argument("--ssh-config", type=Path, help="ssh's own configuration (its option -F)")
    deploy.add_argument("--serve", default="127.0.0.1", metavar="HOST[:PORT]", help="our address that stations reach")
    deploy.add_argument("--folder", default=MODELS_ON_CARD, help="for models, on the station (default: %(default)s)")
    deploy.add_argument("--place", default=CONFIG_ON_CARD, help="of line.toml, on the station (default: %(default)s)")
    deploy.add_argument("--patience", type=float, default=90.0, help="seconds for a restart (default: %(default)s)")
    deploy.add_argument("--restart", default=RESTART, help="what starts the station anew (default: %(default)s)")
    deploy.add_argument("--even-if-unfit", action="store_true", help="also a model that its export judged unfit")
    confirmed = "also a model of another product, or one that carries no known-bad parts"
    deploy.add_argument("--confirmed", action="store_true", help=confirmed)
    rollback = tasks.add_parser("rollback", help="have lines judge with the model before")
    fleet = tasks.add_parser("fleet", help="which line runs which model")
    fleet.add_argument("--site", default="+", help="only lines of this site")
    fleet.add_argument("--wait", type=float, default=2.0, help="seconds to listen (default: %(default)s)")
    for task in (deploy, rollback):
        task.add_argument("--to", action="append", required=True, metavar="SITE/LINE", help="may be given again")
        watched = "seconds to watch a trial for the model before coming back (default: %(default)s)"
        task.add_argument("--watch", type=float, default=10.0, help=watched)
    for task in (deploy, rollback, fleet):
        add_broker_options(task)
    options = parser.parse_args()
    if options.task == "deploy" and (options.model is None) == (options.config is None):
        parser.error("deploy takes a model's folder, or --config")
    if options.task == "deploy" and options.config and not options.ssh:
        parser.error("--config goes over --ssh")
    return options


def require_line(line: str) -> None:
    site, _, own = line.partition("/")
    if not is_topic_level(site) or not is_topic_level(own):
        raise InputError(f"--to {line!r:.80}: write SITE/LINE, as in the line's configuration")


def deploy_model(lines: Lines, line: str, options: argparse.Namespace) -> None:
    package = load_package(options.model)
    model_id = package.manifest.id
    values: dict[str, object] = {"model": model_id}
    if not options.even_if_unfit:
        require_fit(model_id, package.manifest.fitness, "say --even-if-unfit")
    elif package.manifest.fitness is not None:  # stations of before know neither verdict nor key
        values["even_if_unfit"] = True
    if options.confirmed:
        values["confirmed"] = True
    with contextlib.ExitStack() as opened:
        if options.ssh:
            copy_package(Remote(options.ssh, options.ssh_config), package, options.folder)
        else:
            require_signature(package)
            address = parse_address(options.serve, port=0)
            if address is None:
                raise InputError(f"--serve {options.serve!r:.80}: write HOST or HOST:PORT")
            values["url"] = opened.enter_context(serve_package(package, *address))
        change(lines, line, "model", options.watch, **values)


def require_signature(package: Package) -> None:
    if not (package.folder / SIGNATURE).is_file():
        raise InputError(
            f"{package.folder} is not signed, and stations fetch only what is: sign it with `beltsight sign`"
        )


def change(lines: Lines, line: str, name: str, watch_s: float, **values: object) -> None:
    """Command it, and watch whether it holds. Raises: InputError if it does not."""
    answer = lines.command(line, name, CHANGED_WITHIN_S, **values)
    if not answer.obeyed:
        raise InputError(f"{line}: {answer.reason}")
    remark = f" ({answer.reason})" if answer.reason else ""
    print(f"{line}: {values.get('model', 'the model before')} judges, on trial{remark}", flush=True)
    again = lines.answer(answer.id, watch_s)
    if again and not again.obeyed:
        raise InputError(f"{line}: {again.reason}")


def deploy_config(lines: Lines, line: str, options: argparse.Namespace) -> None:
    """The station has to run again within `--patience`, or it gets its old configuration back."""
    remote = Remote(options.ssh, options.ssh_config)
    install_config(remote, options.config, options.place, options.restart)
    if runs_again(lines, line, options.patience):
        print(f"{line}: runs with {options.config}", flush=True)
        return
    restore_config(remote, options.place, options.restart)
    raise InputError(f"{line} did not run with {options.config}: it has its configuration of before again")


def runs_again(lines: Lines, line: str, within_s: float) -> bool:
    """Whether the line says that it stopped or vanished, and then that it runs."""
    was_gone = False
    for name, report in lines.reports(within_s):
        if name == line and isinstance(report, LineState):
            was_gone = was_gone or report.state in ("lost", "stopped")
            if was_gone and report.state in JUDGING:
                return True
    return False


if __name__ == "__main__":
    sys.exit(run_main(main))
