#!/bin/sh
# Make VERSION/site from VERSION/wheels, without a network; interrupted anywhere, it begins again at the next boot.
#   install.sh VERSION PYTHON
set -eu
version=$1
python=$2
cd "$version"
rm -rf site.partial
# pip compares each wheel with the SHA-256 in the list, once more.
"$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
    --no-index --no-deps --require-hashes --find-links wheels --target site.partial -r wheels/wheels.txt
# The station may not write here: without compiled files it would compile at each start, for seconds.
"$python" -m compileall -q site.partial board protocol
# On the card before it has its name: a power cut leaves site.partial, never half of site.
sync
mv -T site.partial site
sync
