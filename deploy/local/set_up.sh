#!/bin/sh
# Make build/venv, install what requirements.lock names, fetch broker and Redis. Run it again: it does only what is missing.
set -eu
cd "$(dirname "$0")/../.."

say() { printf 'setup: %s\n' "$*"; }
give_up() { printf 'setup: %s\n' "$*" >&2; exit 1; }

is_new_enough() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The distribution's first: it is built with profiles, and takes a tenth less time than what version managers build.
find_python() {
    if is_new_enough /usr/bin/python3 && /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then
        printf /usr/bin/python3
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
    return 1
}

apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    say "installing $* with apt-get"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null
}

make_venv() {
    python=$(find_python) || { apt_install python3 python3-venv && python=$(find_python); } ||
        give_up 'Python 3.11 or newer is missing: install it, then run this again.'
    # Debian parts venv's installer of pip from Python itself.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv ||
        give_up 'venv is missing: run `sudo apt-get install python3-venv`, then this again.'
    say "making build/venv with $("$python" --version)"
    rm -rf build/venv
    "$python" -m venv build/venv
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# uv installs in a fifth of pip's time; pip does it where uv finds no way (a proxy that only pip is told of).
install_locked() {
    awk '/^[^ #]/ { ours = /^uv==/ } ours' requirements.lock > build/uv.lock
    pip_install --require-hashes -r build/uv.lock || return 1
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements.lock ||
        pip_install --require-hashes -r requirements.lock
}

mkdir -p build
venv=build/venv
"$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || make_venv

# What was installed is known by its lock: another lock, another install.
stamp=$venv/installed
wanted=$(cat requirements.lock pyproject.toml | sha256sum)
if [ "$(cat $stamp 2>/dev/null || true)" != "$wanted" ]; then
    say 'installing the packages of requirements.lock into build/venv'
    install_locked || give_up 'The packages could not be installed: is the network there?'
    pip_install --no-deps --no-build-isolation --editable . ||
        give_up 'The project itself could not be installed into build/venv.'
    printf '%s\n' "$wanted" > $stamp
fi

exec "$venv/bin/python" -m deploy.local.fetch
