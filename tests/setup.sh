#!/bin/sh
# Installs what building, testing and the exercise need on Debian 12, beside rustup's cargo. Run as root or as a sudoer.
#   gcc, libc6-dev            ring and SQLite are C
#   softhsm2                  the token of the exercise and of the tests
#   openssl, libengine-pkcs11-openssl, opensc, gnutls-bin
#                             the tools that check our work: openssl cms/dgst/verify, pkcs11-tool, p11tool
#   python3-cryptography      the same of AES-GCM, which openssl's command line does not do
#   p11-kit, p11-kit-modules  an HSM that can be killed: p11-kit's server in front of SoftHSM
#   libssl-dev, libsqlite3-dev, pkg-config, libclang1, libclang-common-14-dev
#                             what the tests build Kryoptic against, a second token: its headers are read by libclang
#   systemd                   systemd-analyze, which lints the units
set -eu
packages="gcc libc6-dev ca-certificates softhsm2 openssl libengine-pkcs11-openssl opensc gnutls-bin python3-cryptography p11-kit p11-kit-modules \
libssl-dev libsqlite3-dev pkg-config libclang1 libclang-common-14-dev systemd"

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo"
    command -v sudo >/dev/null || { echo "setup: run this as root, or install sudo: missing are$missing" >&2; exit 1; }
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
