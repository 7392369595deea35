# Prints what on a host without the package labredes-asterisk is in the way of its user and its service: "process" with
# the number and name of each that neither the service nor dpkg would stop, "login" if the user can log in, "purge" if
# dpkg knows Debian's package, which may be removed already, and "left" if there is anything to take over.
! dpkg-query --show labredes-asterisk > /dev/null 2>&1 || exit 0
{
    grep -lsx asterisk /proc/[0-9]*/comm | cut -d/ -f3
    ! id asterisk > /dev/null 2>&1 || find /proc -maxdepth 1 -name '[0-9]*' -user asterisk -printf '%f\n'
} | sort -nu | while read -r process; do
    grep -qs '/asterisk\.service$' "/proc/$process/cgroup" || echo "process $process ($(cat "/proc/$process/comm"))"
done
getent passwd asterisk | while IFS=: read -r _ _ _ _ _ home shell; do
    case $shell in */nologin | */false) continue ;; esac
    if [ -s "$home/.ssh/authorized_keys" ] || getent shadow asterisk | cut -d: -f2 | grep -q '^[^!*]'; then
        echo login
    fi
done
case $(dpkg-query --show '--showformat=${db:Status-Status}' asterisk 2> /dev/null) in
installed | config-files) echo purge ;;
esac
! systemctl cat asterisk.service > /dev/null 2>&1 || echo left
for path in /etc/asterisk* /usr/lib/asterisk* /var/lib/asterisk /etc/odbc.ini /etc/systemd/system/asterisk.service; do
    [ ! -e "$path" ] || echo left
done
