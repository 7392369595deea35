#!/usr/bin/env bash
# Runs ansible-test sanity on the collection, without containers and, after the first run, without a network.
# ansible-test accepts only a checkout that lies at ansible_collections/labredes/pbx, so it works on a copy.
# Its virtual environments are kept in .cache/sanity; --prime-venvs makes them, in half a minute, and runs no test.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PWD/.venv/bin:$PATH
HOME=$PWD/.cache/sanity
export PATH HOME LC_ALL=C.UTF-8
unset "${!ANSIBLE_@}"

copy=$HOME/ansible_collections/labredes/pbx
rm -rf "$copy"
mkdir -p "$copy" "$HOME/.ansible/test/cache"
git ls-files -z --cached --others --exclude-standard -- galaxy.yml meta plugins tests/config.yml |
    xargs -0 cp --parents --target-directory="$copy" --
# A repository of its own, or ansible-test would ask git about this one, which ignores .cache.
git init --quiet "$copy"

# ansible-test downloads the installer of pip from a host of its own; Python already brings one.
cat >"$HOME/.ansible/test/cache/get_pip_23_1_2.py" <<'PYTHON'
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
PYTHON

# Left out, since another step of `make lint` does their work with our settings: pep8 and pylint (ruff),
# yamllint, shellcheck. changelog needs antsibull-changelog's fragments, which the project does not use.
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cd "$copy"
log=$HOME/log
if ! ansible-test sanity --python "$python" \
    --skip-test changelog --skip-test pep8 --skip-test pylint --skip-test shellcheck --skip-test yamllint \
    "$@" >"$log" 2>&1 || grep -q 'All targets skipped' "$log"; then
    sed -n '/^ERROR\|^FATAL\|All targets skipped/,$p' "$log" | grep -v '^Running' >&2
    exit 1
fi
