"""Make key pairs for the server, its boards and its workers: `beltsight keys FOLDER NAME…`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from protocol.errors import run_main
from protocol.keys import write_key_pair


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight keys", description="Make NAME.public and NAME.secret in FOLDER.")
    parser.add_argument("folder", type=Path, help="is made with mode 0700 if it is not there")
    parser.add_argument("names", nargs="+", metavar="name")
    options = parser.parse_args()
    for name in options.names:
        public, secret = write_key_pair(options.folder, name)
        print(f"{public}  give it to the other side\n{secret}  keep it to yourself")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
