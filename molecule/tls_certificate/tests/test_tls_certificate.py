"""Role tls_certificate: a self-signed certificate for the host's name and address, with its key and bundle."""

from __future__ import annotations

import pytest

DIRECTORY = "/etc/ssl/labredes"


@pytest.mark.parametrize("name", ["key.pem", "certificate.p12"])
def test_private_file_is_not_readable_by_others(host, name):
    file = host.file(f"{DIRECTORY}/{name}")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o640)


def test_certificate_belongs_to_the_key(host):
    key = host.check_output(f"openssl pkey -in {DIRECTORY}/key.pem -pubout")
    assert key == host.check_output(f"openssl x509 -in {DIRECTORY}/certificate.pem -noout -pubkey")


def test_certificate_names_the_host(host, hostname, address):
    shown = host.check_output(f"openssl x509 -in {DIRECTORY}/certificate.pem -noout -ext subjectAltName")
    assert f"IP Address:{address}" in shown
    assert f"DNS:{hostname}" in shown


def test_certificate_is_not_about_to_expire(host):
    month = 30 * 24 * 3600
    assert host.run(f"openssl x509 -in {DIRECTORY}/certificate.pem -noout -checkend {month}").rc == 0


def test_bundle_opens_with_its_passphrase_alone(host, lab_directory):
    (secret,) = (lab_directory / "secrets").rglob("tls_passphrase")
    line = "openssl pkcs12 -in {0}/certificate.p12 -noout -passin pass:{1}"
    assert host.run(line.format(DIRECTORY, secret.read_text().strip())).rc == 0
    assert host.run(line.format(DIRECTORY, "wrong")).rc != 0


def test_timer_starts_a_service_that_succeeds(host):
    assert host.service("labredes-certificate.timer").is_running
    assert host.service("labredes-certificate.timer").is_enabled
    before = host.file(f"{DIRECTORY}/certificate.pem").sha256sum
    assert host.run("systemctl start labredes-certificate.service").rc == 0
    assert host.file(f"{DIRECTORY}/certificate.pem").sha256sum == before
