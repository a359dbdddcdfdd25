"""Fetch a public set of pictures from its publisher.

beltsight get-data --list
beltsight get-data mvtec-bottle                            shows the licence and asks
beltsight get-data mvtec-bottle --accept-licence --out data
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from host.pictures.catalogue import CATALOGUE, DataSet, Source
from host.pictures.download import Advance, download
from host.pictures.unpack import unpack
from protocol.errors import InputError, run_resumable


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight get-data", description="Fetch a public set of pictures.")
    parser.add_argument("name", nargs="?", help="name of the set")
    parser.add_argument("--list", action="store_true", help="what there is, with licences")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets (default: data)")
    parser.add_argument("--accept-licence", action="store_true", help="do not ask")
    options = parser.parse_args()
    if options.list:
        print("\n\n".join(map(describe, CATALOGUE)))
        return 0
    dataset = find_dataset(options.name)
    print(describe(dataset))
    if (options.out / dataset.name).exists():
        print(f"\nis already in {options.out / dataset.name}")
        return 0
    if not options.accept_licence:
        _ask()
    try:
        print(f"\nis now in {fetch(dataset, options.out)}")
    except KeyboardInterrupt:
        print(file=sys.stderr)  # ends the line of the progress
        raise
    except OSError as error:
        raise InputError(f"{error.filename or options.out}: {error.strerror or error}: choose another --out") from None
    return 0


def describe(dataset: DataSet) -> str:
    sources = "\n".join(f"  from     {source.url}\n           {_name_checksum(source)}" for source in dataset.sources)
    return (
        f"{dataset.name}\n  what     {dataset.what}\n  licence  {dataset.licence}\n  page     {dataset.page}\n{sources}"
    )


def find_dataset(name: str | None) -> DataSet:
    """Raises: InputError if the catalogue has none of that name."""
    for dataset in CATALOGUE:
        if dataset.name == name:
            return dataset
    names = ", ".join(dataset.name for dataset in CATALOGUE)
    raise InputError(f"no set is named {name!r}: choose one of {names}" if name else f"name a set: {names}")


def fetch(dataset: DataSet, out: Path) -> Path:
    """The set's folder in `out`; it appears whole or not at all. Downloads are kept beside it until then.

    Raises: InputError if the set cannot be had or is not what it should be; OSError if `out` cannot be written.
    """
    downloads = out / f".{dataset.name}.downloads"
    unpacked = out / f".{dataset.name}.partial"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        for source in dataset.sources:
            path = download(source, downloads, _show_progress(source.file_name))
            if ".tar" in path.suffixes:
                unpack(path, unpacked, dataset.largest_unpacked_bytes)
            else:
                unpacked.mkdir(exist_ok=True)
                shutil.copyfile(path, unpacked / path.name)
        _check_files(dataset, unpacked)
        os.replace(unpacked, out / dataset.name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    for path in downloads.iterdir():
        if path.suffix != ".sha256":  # what was recorded at the first download stays
            path.unlink()
    return out / dataset.name


def _check_files(dataset: DataSet, folder: Path) -> None:
    for name, expected in dataset.files.items():
        found = len(list((folder / name).iterdir())) if (folder / name).is_dir() else 0
        if found != expected:
            raise InputError(
                f"{dataset.name} has {found} files in {name}, expected {expected}: the publisher has changed the set; "
                f"look at {dataset.page}"
            )


def _ask() -> None:
    """Raises: InputError if the licence is not accepted."""
    if not sys.stdin.isatty():
        raise InputError("the licence must be accepted: read it above, then give --accept-licence")
    if input("\nUse it under this licence? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("the licence was not accepted: nothing was downloaded")


def _name_checksum(source: Source) -> str:
    return source.checksum or "checksum not published: recorded at the first download"


def _show_progress(name: str) -> Advance:
    """One line on a terminal, with the time that is left."""
    started_s, start_bytes, quiet_until_s = time.monotonic(), -1, 0.0

    def advance(there: int, total: int) -> None:
        nonlocal start_bytes, quiet_until_s
        start_bytes = there if start_bytes < 0 else start_bytes
        now_s = time.monotonic()
        if not sys.stderr.isatty() or (now_s < quiet_until_s and there < total):
            return
        quiet_until_s = now_s + 0.2
        left = ""
        if total and there > start_bytes:
            left_s = (total - there) * (now_s - started_s) / (there - start_bytes)
            left = f" of {total / 1e6:.1f}, {left_s:.0f} s left"
        print(f"\r{name}: {there / 1e6:.1f}{left} MB\033[K", end="\n" if there >= total else "", file=sys.stderr)

    return advance


if __name__ == "__main__":
    sys.exit(run_resumable(main))
