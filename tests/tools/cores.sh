#!/usr/bin/env bash
# Runs the unit tests, or the pytest arguments given, with each version of ansible-core that is supported, that of .venv on
# another Python, each in a virtual environment in .cache/cores. CORES names them. One for which this machine has no
# Python is reported. With LAB_DIR, the directory of a finished lab host, each also runs the installed collection there.
set -euo pipefail
cd "$(dirname "$0")/../.."
export ANSIBLE_CONFIG=$PWD/ansible.cfg
# The package `ansible` of the same time has the collections; the first Python that is there is taken.
declare -A collections=([2.16]=9 [2.17]=10 [2.18]=11 [2.19]=12 [2.20]=13 [2.21]=14)
declare -A pythons=([2.16]="3.10 3.12" [2.17]="3.12 3.11" [2.18]="3.13 3.12 3.11" [2.19]="3.11 3.12 3.13"
    [2.20]="3.12 3.13 3.14" [2.21]="3.13 3.14 3.12")
[ $# -gt 0 ] || set -- tests/unit ${LAB_DIR:+tests/site/test_installed_collection.py}
status=0
for core in ${CORES:-2.16 2.17 2.18 2.19 2.20 2.21}; do
    environment=$PWD/.cache/cores/$core python=
    for version in ${pythons[$core]}; do
        if [ -z "$python" ] && "python$version" -c '' 2>/dev/null; then python=python$version; fi
    done
    if [ -z "$python" ]; then
        echo "ansible-core $core: not run, since there is none of Python ${pythons[$core]}"
        continue
    fi
    if [ ! -e "$environment/made" ]; then
        "$python" -m venv --clear "$environment"
        # What the tests do not need, and some of it is not for Python 3.10; hypothesis is pinned to one that is not.
        sed '/^\(ansible\(-core\|-lint\|-compat\)\?\|molecule\|debsbom\|pre_commit\)==\|^-r/d; s/^hypothesis==.*/hypothesis/' \
            requirements-dev.txt >"$environment/requirements"
        "$environment/bin/python" -m pip install -qq --disable-pip-version-check --requirement "$environment/requirements" \
            "ansible-core~=$core.0" "ansible~=${collections[$core]}.0"
        touch "$environment/made"
    fi
    PATH=$environment/bin:$PATH ansible --version | sed -n '1p;s/^ *python version/ &/p'
    PATH=$environment/bin:$PATH "$environment/bin/python" -m pytest -q -p no:cacheprovider "$@" || status=1
done
exit $status
