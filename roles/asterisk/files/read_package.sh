# Prints name, version and architecture of a Debian package, the architecture of the host, and what the package depends
# on; fails if it is not whole.
set -e
dpkg-deb --fsys-tarfile "$1" > /dev/null
# shellcheck disable=SC2016 # the fields are dpkg's
dpkg-deb --show --showformat='${Package}\n${Version}\n${Architecture}\n' "$1"
dpkg --print-architecture
dpkg-deb --field "$1" Depends
