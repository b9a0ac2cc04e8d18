#!/bin/sh
# Sets up a checkout on Debian or Ubuntu with nothing but Python >= 3.11: system programs, .venv, locked packages.
#
#   deploy/setup.sh python          .venv with every package of requirements.lock, and this checkout in it
#   deploy/setup.sh demo            the above and Mosquitto (the demo cannot go on without it)
#   deploy/setup.sh test            the above and the peers the tests talk to; what stays missing is skipped by name
#
# PYTHON=/path/to/python3.12 chooses the interpreter. Proxies and mirrors set for pip and apt are left as they are.
# Installing Mosquitto here never starts or enables a system service.
set -eu

cd "$(dirname "$0")/.."
VENV=.venv
STAMP=$VENV/.tizgin-locked

say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$*"; exit 1; }
have() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null 2>&1; }

# --- becoming root, only where apt needs it -------------------------------------------------------------------------

can_install() {
    have apt-get || return 1
    [ "$(id -u)" -eq 0 ] && return 0
    have sudo && sudo -n true 2>/dev/null
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        # -E keeps a proxy set in the environment; where sudo forbids that, plain sudo must do.
        if sudo -n -E true 2>/dev/null; then sudo -n -E "$@"; else sudo -n "$@"; fi
    fi
}

POLICY=/usr/sbin/policy-rc.d
# Recognised if a killed run left it behind.
POLICY_MARK="temporary, by tizgin's deploy/setup.sh; may be removed"
policy_is_ours=no

remove_policy() {
    if [ "$policy_is_ours" = yes ]; then
        as_root rm -f "$POLICY"
        policy_is_ours=no
    fi
}
trap remove_policy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

lists_updated=no

apt_install() {
    apt_get install --no-install-recommends --no-remove "$@" && return 0
    [ "$lists_updated" = no ] || return 1
    say "not found or out of date: apt-get update, then once more"
    # One broken source among several is no reason to stop: whether the package is there shows next.
    apt_get update || say "apt-get update reported an error (above)"
    lists_updated=yes
    apt_get install --no-install-recommends --no-remove "$@"
}

# needrestart would restart services that have nothing to do with this; a fresh machine may hold the lock for a while.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -y -o DPkg::Lock::Timeout=120 "$@" >&2
}

# A package's maintainer script asks policy-rc.d whether it may start its service; 101 says no.
without_services() {
    if [ ! -e "$POLICY" ] || grep -q "$POLICY_MARK" "$POLICY"; then
        policy_is_ours=yes
        printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
    result=0
    "$@" || result=$?
    remove_policy
    return "$result"
}

# --- system programs --------------------------------------------------------------------------------------------------

# need PROGRAM PACKAGE...: installs the packages when the program is missing; 1 where that is not possible.
need() {
    program=$1
    shift
    have "$program" && return 0
    can_install || return 1
    say "installing $*"
    apt_install "$@" || return 1
    have "$program"
}

chromium_name() {
    for name in chromium chromium-browser google-chrome; do
        if have "$name"; then printf '%s\n' "$name"; return 0; fi
    done
    return 1
}

need_mosquitto() {
    have mosquitto && return 0
    can_install || return 1
    say "installing mosquitto (the program alone; no service is started)"
    without_services apt_install mosquitto || return 1
    # The package enables its unit for the next boot; the demo and the tests start their own broker.
    if have systemctl && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now mosquitto.service >/dev/null 2>&1 || true
    fi
    have mosquitto
}

demo_programs() {
    need_mosquitto || die "mosquitto is missing and cannot be installed from here (no root, no passwordless sudo, or no" \
        "package source): run 'sudo apt-get install mosquitto' and then 'sudo systemctl disable --now mosquitto'"
}

# Debian keeps the server's programs off PATH.
have_postgres() { have initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }

need_postgres() {
    have_postgres && return 0
    can_install || return 1
    say "installing postgresql (the programs alone; no service is started)"
    without_services apt_install postgresql || return 1
    # The tests make a server of their own in a temporary folder; the package's own is not for them.
    if have systemctl && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now postgresql.service >/dev/null 2>&1 || true
    fi
    have_postgres
}

# A TPM in software: the chip, its resource manager on a bus of its own, the PKCS#11 library and its tool.
SOFT_TPM="swtpm swtpm-tools tpm2-abrmd libtss2-tcti-tabrmd0 libtpm2-pkcs11-1 libtpm2-pkcs11-tools dbus"

have_soft_tpm() { have swtpm && have tpm2-abrmd && have tpm2_ptool && have dbus-daemon; }

need_soft_tpm() {
    have_soft_tpm && return 0
    can_install || return 1
    say "installing $SOFT_TPM (the programs alone; no service is started)"
    # shellcheck disable=SC2086  # a list of packages
    without_services apt_install $SOFT_TPM || return 1
    if have systemctl && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now tpm2-abrmd.service >/dev/null 2>&1 || true
    fi
    have_soft_tpm
}

test_programs() {
    missing=
    need_mosquitto || missing="$missing mosquitto"
    need mbpoll mbpoll || missing="$missing mbpoll"
    need snmpget snmp || missing="$missing snmp"
    need softhsm2-util softhsm2 || missing="$missing softhsm2"
    need_soft_tpm || missing="$missing $SOFT_TPM"
    need_postgres || missing="$missing postgresql"
    if ! chromium_name >/dev/null; then
        if ! { can_install && say "installing chromium fonts-dejavu-core" \
            && apt_install chromium fonts-dejavu-core && chromium_name >/dev/null; }; then
            missing="$missing chromium fonts-dejavu-core"
        fi
    fi
    if [ -n "$missing" ]; then
        say "not here:$missing; tests that need them will be skipped by name." \
            "To run them: sudo apt-get install$missing"
    fi
}

# --- Python -----------------------------------------------------------------------------------------------------------

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python >= 3.11: choose another"
        printf '%s\n' "$PYTHON"
        return 0
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        if have "$name" && is_new_enough "$name"; then printf '%s\n' "$name"; return 0; fi
    done
    die "no Python >= 3.11 on PATH: install one (Debian 12, Ubuntu 24.04 and later have it as python3)"
}

make_venv() {
    if [ -x "$VENV/bin/python" ] && is_new_enough "$VENV/bin/python"; then
        # A checkout that was moved or copied has scripts that point to the old place.
        if [ ! -f "$STAMP" ] || [ "$(sed -n 2p "$STAMP")" = "$(pwd)" ]; then return 0; fi
    fi
    python=$(find_python)
    # Debian ships ensurepip apart from Python.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        can_install || die "Python's venv module is missing: run 'sudo apt-get install python3-venv'"
        say "installing python3-venv"
        apt_install "python$version-venv" || apt_install python3-venv \
            || die "python3-venv could not be installed: run 'sudo apt-get install python3-venv'"
    fi
    say "creating $VENV with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$VENV"
}

# What the stamp must say for the packages to be up to date.
wanted_stamp() {
    "$VENV/bin/python" -c '
import hashlib, pathlib, sys
digest = hashlib.sha256()
for name in ("requirements.lock", "pyproject.toml"):
    digest.update(pathlib.Path(name).read_bytes())
print(sys.version.split()[0], sys.argv[1], digest.hexdigest(), sep="\n")' "$(pwd)"
}

install_packages() {
    if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ]; then
        return 0
    fi
    rm -f "$STAMP"
    say "installing the packages of requirements.lock (once; takes a minute or two)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    # Built with the locked setuptools: nothing is downloaded for it.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    wanted_stamp >"$STAMP"
}

case "${1:-}" in
    python) make_venv; install_packages ;;
    demo) make_venv; demo_programs; install_packages ;;
    test) make_venv; test_programs; install_packages ;;
    *) die "usage: deploy/setup.sh python|demo|test" ;;
esac
