#!/bin/sh
# Installs Asterisk on this host as an administrator does without a playbook, and uses it for a
# moment. Run as root in the directory of this script, where manual_installation.py has put the sources and a package.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
here=$(cd "$(dirname "$0")" && pwd)

# An administrator with a key, and a password for sudo; SSH on another port, by key alone.
access() {
    useradd --create-home --shell /bin/bash --groups sudo antonio
    echo antonio:Idefix | chpasswd
    install -d -m 0700 -o antonio -g antonio /home/antonio/.ssh
    install -m 0600 -o antonio -g antonio /home/admin/.ssh/authorized_keys /home/antonio/.ssh
    sed -i -E 's/^#?Port .*/Port 3524/; s/^#?PasswordAuthentication .*/PasswordAuthentication no/' /etc/ssh/sshd_config
    systemctl restart ssh
}

# Debian's packages first, which are removed again: the user asterisk and their configuration stay.
packages() {
    apt-get -qq update
    apt-get -qq -y --no-install-recommends install asterisk
    apt-get -qq -y remove asterisk
    apt-get -qq -y autoremove
    apt-get -qq -y --no-install-recommends install postgresql libradcli4 openssl
}

# The files that `make install` places: of a package that was built from the same sources, without a trace in dpkg's
# database. Other than after a true build, there are no headers, manual pages and sources, and no modules but those of
# the package.
from_package() {
    apt-get -qq -y --no-install-recommends satisfy "$(dpkg-deb --field "$here"/asterisk.deb Depends)"
    dpkg-deb --fsys-tarfile "$here"/asterisk.deb | tar -x -C / --no-overwrite-dir --exclude=./usr/share/doc
    ldconfig
    mkdir "$here"/tree
    tar -xf "$here"/asterisk-[0-9]*.tar.gz -C "$here"/tree --strip-components=1
    mkdir -p /etc/asterisk
    install -m 0644 "$here"/tree/configs/samples/*.adsi /etc/asterisk
    for sample in "$here"/tree/configs/samples/*.sample; do
        name=$(basename "$sample" .sample)
        # make samples keeps what it replaces.
        [ ! -e "/etc/asterisk/$name" ] || mv "/etc/asterisk/$name" "/etc/asterisk/$name.old"
        install -m 0644 "$sample" "/etc/asterisk/$name"
    done
}

certificate() {
    mkdir -m 0700 /etc/asterisk/keys
    cd /etc/asterisk/keys
    openssl req -newkey rsa:4096 -nodes -keyout key.pem -x509 -days 365 -subj "/CN=$(uname -n)" -out certificate.pem \
        2> /dev/null
    openssl pkcs12 -inkey key.pem -in certificate.pem -export -passout pass:Obelix -out certificate.p12
    cd "$here"
}

configure() {
    cp "$here"/asterisk/* /etc/asterisk/
    for file in cdr cel; do
        sed -i -E 's,^;?radiuscfg *=.*,radiuscfg => /etc/radcli/radiusclient.conf,' /etc/asterisk/$file.conf
    done
    ln -s /etc/radcli /etc/radiusclient-ng
    sed -i 's/^\[modules\].*/&\npreload => res_config_pgsql.so/' /etc/asterisk/modules.conf
    cat >> /etc/asterisk/asterisk.conf << 'END'
[files]
astctlpermissions = 0660
astctlowner = asterisk
astctlgroup = asterisk
astctl = asterisk.ctl
END
    runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -f "$here"/asterisk.sql
}

# Waits until a mailbox has a message in one of its directories.
recorded() {
    messages=/var/spool/asterisk/voicemail/from-internal/6001/$1
    timeout 60 sh -c "until ls $messages/*.wav > /dev/null 2>&1; do sleep 1; done"
}

# Run as root, by hand. A caller leaves a message and a call record, a phone forwards its calls, a conference is held.
use() {
    setsid asterisk < /dev/null > /dev/null 2>&1
    timeout 60 sh -c "until asterisk -rx 'core waitfullybooted' > /dev/null 2>&1; do sleep 1; done"
    asterisk -rx 'database put REDIRECT 6002 6003' > /dev/null
    asterisk -rx 'channel originate Local/6000@from-internal application Wait 1' > /dev/null
    asterisk -rx 'channel originate Local/6001@from-internal application Milliwatt' > /dev/null
    # The greeting has ended, and the message begins.
    recorded tmp
    sleep 3
    asterisk -rx 'channel request hangup all' > /dev/null
    recorded INBOX
    timeout 20 sh -c "until [ \"\$(cd /; runuser -u postgres -- psql -At asterisk -c \
        'SELECT count(*) > 4 FROM cdr')\" = t ]; do sleep 1; done"
}

access
packages
from_package
certificate
configure
use
