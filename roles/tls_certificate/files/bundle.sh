#!/bin/sh
# Arguments: directory, owner:group, check or create. Standard input: the passphrase. Prints "changed" when
# certificate.p12 does not match the certificate, the passphrase or the owner; create then writes a new one.
set -eu
umask 077
cd "$1"
IFS= read -r passphrase
wanted=$(openssl x509 -in certificate.pem -noout -fingerprint -sha256 2>/dev/null || echo none)
present=$(printf '%s\n' "$passphrase" | openssl pkcs12 -in certificate.p12 -passin stdin -nokeys -clcerts 2>/dev/null |
          openssl x509 -noout -fingerprint -sha256 2>/dev/null || true)
if [ "$present" = "$wanted" ] && [ "$(stat -c %U:%G:%a certificate.p12)" = "$2:640" ]; then
    exit 0
fi
if [ "$3" = create ]; then
    # 3DES and RC2, the defaults of OpenSSL 1.1, are too weak.
    printf '%s\n' "$passphrase" | openssl pkcs12 -export -inkey key.pem -in certificate.pem -out .certificate.p12 \
        -passout stdin -keypbe AES-256-CBC -certpbe AES-256-CBC -macalg sha256
    chown "$2" .certificate.p12
    chmod 640 .certificate.p12
    mv .certificate.p12 certificate.p12
fi
echo changed
