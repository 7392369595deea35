# Stops Asterisk, of version $1, and keeps its package, logs and core dumps in /var/lib/labredes/upgrade/failed; prints
# what is there. On a full disk nothing is kept, and the way back goes on.
version=$1
cd /var/lib/labredes || exit
umask 077
timeout 5 systemctl stop asterisk.service || systemctl kill --signal=KILL asterisk.service
systemctl stop asterisk.service
systemctl reset-failed asterisk.service 2> /dev/null
if [ "$(cat upgrade/failed/version 2> /dev/null)" != "$version" ]; then
    rm -rf upgrade/failed
    mkdir upgrade/failed
    printf %s "$version" > upgrade/failed/version
fi
cd upgrade/failed || exit 0
for package in ../../packages/*.deb; do
    [ ! -e "$package" ] || [ "$package" -ef ../previous/package.deb ] || mv "$package" .
done
since=$(date --date="@$(stat -c %Y ../begun ../previous/version 2> /dev/null | sort -n | tail -n 1)" '+%F %T')
journalctl --unit=asterisk --since="$since" --no-pager > journal.log
tail -n 2000 /var/log/asterisk/messages > messages.log 2> /dev/null
find /var/lib/asterisk /var/lib/systemd/coredump -maxdepth 1 -type f -name 'core*' -newer ../previous/version \
    -exec mv {} . \; 2> /dev/null
cp -a /etc/asterisk . 2> /dev/null
ls
exit 0
