# Renames what another Asterisk has left, or copies what is overwritten, and prints the new names. Each is kept once more if
# there is one already.
set -eu
for path in /etc/asterisk /usr/lib/asterisk; do
    [ -e "$path" ] || continue
    # The modules of packages are removed with these.
    [ "$path" = /etc/asterisk ] || ! dpkg-query --search "$path" > /dev/null 2>&1 || continue
    mv --no-target-directory --backup=numbered "$path" "$path.before-labredes"
    echo "$path.before-labredes"
done
# Beside its modules the program of `make install` and its libraries.
if [ -d /usr/lib/asterisk.before-labredes ] && ! dpkg-query --search /usr/sbin/asterisk > /dev/null 2>&1; then
    for path in /usr/sbin/asterisk /usr/lib/libasterisk*; do
        [ ! -e "$path" ] || cp --preserve --no-dereference --backup=numbered "$path" /usr/lib/asterisk.before-labredes/
    done
fi
foreign() {
    [ -s "$1" ] && ! grep -q 'Ansible managed' "$1"
}
# Not beside the file, where logrotate would read it too.
if [ -d /etc/asterisk.before-labredes ] && foreign /etc/logrotate.d/asterisk; then
    cp --preserve --backup=numbered /etc/logrotate.d/asterisk /etc/asterisk.before-labredes/logrotate.d
fi
for path in /etc/odbc.ini /etc/systemd/system/asterisk.service; do
    if foreign "$path"; then
        cp --preserve --backup=numbered "$path" "$path.before-labredes"
        echo "$path.before-labredes"
    fi
done
