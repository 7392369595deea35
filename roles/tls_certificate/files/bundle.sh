# Arguments: directory, owner:group, look or make. Standard input: the passphrase. Prints "changed" when the
# PKCS#12 file is not that of the certificate, of this passphrase and of this owner; with make, it is afterwards.
set -eu
umask 077
cd "$1"
IFS= read -r passphrase
wanted=$(openssl x509 -in certificate.pem -noout -fingerprint -sha256 2>/dev/null || echo none)
there=$(printf '%s\n' "$passphrase" | openssl pkcs12 -in certificate.p12 -passin stdin -nokeys -clcerts 2>/dev/null |
        openssl x509 -noout -fingerprint -sha256 2>/dev/null || true)
if [ "$there" = "$wanted" ] && [ "$(stat -c %U:%G:%a certificate.p12)" = "$2:640" ]; then
    exit 0
fi
if [ "$3" = make ]; then
    # 3DES and RC2, the older openssl's defaults, protect nothing today.
    printf '%s\n' "$passphrase" | openssl pkcs12 -export -inkey key.pem -in certificate.pem -out .certificate.p12 \
        -passout stdin -keypbe AES-256-CBC -certpbe AES-256-CBC -macalg sha256
    chown "$2" .certificate.p12
    chmod 640 .certificate.p12
    mv .certificate.p12 certificate.p12
fi
echo changed
