"""Sign model packages, so that a station knows who made them: `beltsight sign`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from protocol.errors import InputError, run_main
from protocol.manifest import MANIFEST, load_package
from protocol.signing import SIGNATURE, sign, write_signing_pair


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight sign", description="Sign model packages; make the keys for it.")
    tasks = parser.add_subparsers(dest="task", required=True)
    keys = tasks.add_parser("keys", help="make NAME.public.pem for the stations and NAME.secret.pem")
    keys.add_argument("folder", type=Path, help="is made with mode 0700 if it is not there")
    keys.add_argument("name")
    package = tasks.add_parser("package", help="write manifest.json.sig into each package")
    package.add_argument("secret", type=Path, help="NAME.secret.pem")
    package.add_argument("packages", type=Path, nargs="+", metavar="package", help="a folder under models/")
    options = parser.parse_args()
    if options.task == "keys":
        public, secret = write_signing_pair(options.folder, options.name)
        print(f"{public}  copy it to the stations' folder of trusted keys\n{secret}  keep it to yourself")
        return 0
    for folder in options.packages:
        print(sign_package(options.secret, folder))
    return 0


def sign_package(secret: Path, folder: Path) -> Path:
    """The signature's path. Raises: InputError for a package that is not whole: nobody signs a mistake."""
    load_package(folder)
    path = folder / SIGNATURE
    waiting = path.with_name(path.name + ".new")
    try:
        signature = sign(secret, (folder / MANIFEST).read_bytes())
        waiting.unlink(missing_ok=True)
        with waiting.open("xb") as file:  # subtle: never through a link that whoever made the package put there
            file.write(signature)
        os.replace(waiting, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): make the folder writable") from None
    return path


if __name__ == "__main__":
    sys.exit(run_main(main))
