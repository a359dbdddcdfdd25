# Sourced by the other scripts, in the folder of the repository:
# `need_extras FOLDER a,b` completes a virtual environment with extras of our own package (`beltsight` is the package itself);
# `need_environment FOLDER REQUIREMENT…` makes one of other packages, in pip's own words: 'numpy<2'.

# What the checks and the tests need: all that can be tried on one machine.
WHOLE=beltsight,sim,signing,host,server,plant,dashboard,postgresql,overlay,anomalib,baselines,test

need_extras() {
    local folder=$1 extra missing=()
    for extra in ${2//,/ }; do
        is_complete "$folder/.has-$extra" || missing+=("$extra")
    done
    if (( ${#missing[@]} == 0 )); then
        return
    fi
    local list
    list=$(IFS=,; echo "${missing[*]}")
    list=${list#beltsight} list=${list#,}
    install_into "$folder" --editable ".${list:+[$list]}"
    touch "${missing[@]/#/$folder/.has-}"
}

need_environment() {
    local folder=$1
    shift
    local mark="$folder/.has-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)"
    if is_complete "$mark"; then
        return
    fi
    install_into "$folder" "$@"
    touch "$mark"
}

# Its mark is newer than what says what belongs in it.
is_complete() {
    [[ -e $1 && $1 -nt pyproject.toml ]]
}

install_into() {
    local folder=$1 log=$1/install.log
    shift
    [[ -w . ]] || fail "cannot install into $PWD, which is not writable: copy it to where you may write"
    if [[ ! -x $folder/bin/python ]]; then
        find_python
        echo "making the virtual environment $folder (once) …" >&2
        "$PYTHON" -m venv "$folder" || fail "$PYTHON cannot make a virtual environment: install python3-venv"
    fi
    echo "installing into it (once): $*" >&2
    if ! "$folder/bin/python" -m pip install --disable-pip-version-check "$@" >"$log" 2>&1; then
        grep '^ERROR' "$log" >&2 || tail -n 5 "$log" >&2
        fail "the installation failed: see $log; if $PWD/$folder is incomplete, remove it and start again"
    fi
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
