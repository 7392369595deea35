# Renames what another Asterisk has left and prints the new names. Each is kept once more if there is one already.
set -eu
for path in /etc/asterisk /usr/lib/asterisk; do
    [ -e "$path" ] || continue
    # The modules of packages are removed with these.
    [ "$path" = /etc/asterisk ] || ! dpkg-query --search "$path" > /dev/null 2>&1 || continue
    mv --no-target-directory --backup=numbered "$path" "$path.before-labredes"
    echo "$path.before-labredes"
done
if [ -s /etc/odbc.ini ] && ! grep -q 'Ansible managed' /etc/odbc.ini; then
    cp --preserve --backup=numbered /etc/odbc.ini /etc/odbc.ini.before-labredes
    echo /etc/odbc.ini.before-labredes
fi
