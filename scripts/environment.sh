# Sourced by the other scripts: `need_environment FOLDER REQUIREMENT…` makes or completes a virtual environment.
# Requirements are pip's own words: --editable '.[sim]', 'numpy<2'.

# What the checks and the tests need: all that can be tried on one machine.
WHOLE='.[sim,host,server,plant,dashboard,postgresql,overlay,anomalib,baselines,test]'

need_environment() {
    local folder=$1 log
    shift
    # Complete when its mark is newer than what says what belongs in it.
    local mark="$folder/.has-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)"
    if [[ -e $mark && $mark -nt pyproject.toml ]]; then
        return
    fi
    if [[ ! -x $folder/bin/python ]]; then
        find_python
        echo "making the virtual environment $folder (once) …" >&2
        "$PYTHON" -m venv "$folder" || fail "$PYTHON cannot make a virtual environment: install python3-venv"
    fi
    echo "installing into it (once): $*" >&2
    log="$folder/install.log"
    if ! "$folder/bin/python" -m pip install --disable-pip-version-check "$@" >"$log" 2>&1; then
        grep '^ERROR' "$log" >&2 || tail -n 5 "$log" >&2
        fail "the installation failed: see $log"
    fi
    touch "$mark"
}

find_python() {
    for PYTHON in "${PYTHON:-}" python3 python3.12 python3.11 python3.10 python; do
        if [[ -n $PYTHON ]] && "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            return
        fi
    done
    fail "needs Python 3.10 or later: install it, or name it with PYTHON=/path/to/python3"
}

fail() {
    echo "beltsight: $1" >&2
    exit 2
}
