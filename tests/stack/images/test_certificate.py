"""A certificate is valid for one address, and only for clients that trust its CA."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from stack.images.certificate import MARGIN, Certificate, certificate, serves

pytestmark = pytest.mark.unit

HERE = "127.0.0.1"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def made() -> Certificate:
    return certificate(HERE)


def server(made: Certificate, folder: Path) -> ssl.SSLContext:
    """Return a server's TLS context: the certificate followed by its CA, and the key."""
    (folder / "cert.pem").write_text(made.cert + made.ca)
    (folder / "key.pem").write_text(made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def answered(context: ssl.SSLContext, ca: str, address: str) -> str:
    """Connect to a server that says hello, as a strict client that trusts only this CA."""
    trusting = ssl.create_default_context(cadata=ca)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()
    serving = threading.Thread(target=_say_hello, args=(context, far))
    serving.start()
    try:
        with near, trusting.wrap_socket(near, server_hostname=address) as connection:
            return connection.recv(16).decode()
    finally:
        serving.join()


def _say_hello(context: ssl.SSLContext, far: socket.socket) -> None:
    with far:
        try:
            with context.wrap_socket(far, server_side=True) as connection:
                connection.sendall(b"hello")
        except (ssl.SSLError, ConnectionError):
            pass  # The client refuses the certificate, and says so itself.


def read(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_client_that_trusts_the_ca_reaches_the_server(
        made: Certificate, tmp_path: Path) -> None:
    assert answered(server(made, tmp_path), made.ca, HERE) == "hello"


def test_the_server_is_refused_at_another_address(made: Certificate, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        answered(server(made, tmp_path), made.ca, "127.0.0.2")


def test_another_ca_for_the_same_address_is_not_trusted(
        made: Certificate, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        answered(server(made, tmp_path), certificate(HERE).ca, HERE)


def test_an_ipv6_address_can_be_certified(tmp_path: Path) -> None:
    made = certificate("2001:db8::1")

    assert answered(server(made, tmp_path), made.ca, "2001:db8::1") == "hello"


def test_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="registry.example.org"):
        certificate("registry.example.org")


def test_the_ca_may_only_sign_servers(made: Certificate) -> None:
    extensions = read(made.ca).extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)

    assert extensions.get_extension_for_class(x509.BasicConstraints).value \
        == x509.BasicConstraints(ca=True, path_length=0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) \
        == (True, True, False)


def test_the_certificate_may_serve_but_not_sign(made: Certificate) -> None:
    extensions = read(made.cert).extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)

    assert extensions.get_extension_for_class(x509.BasicConstraints).value \
        == x509.BasicConstraints(ca=False, path_length=None)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) \
        == (True, False, True)
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) \
        == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize("kind", ["ca", "cert"])
def test_both_last_for_ten_years_on_a_p_256_key(made: Certificate, kind: str) -> None:
    found = read(getattr(made, kind))
    key = found.public_key()

    assert found.not_valid_after_utc - NOW > timedelta(days=10 * 365.25)
    # For a machine whose clock is behind.
    assert found.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=59)
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def test_the_key_is_not_shown(made: Certificate) -> None:
    assert "PRIVATE" in made.key
    assert "PRIVATE" not in repr(made)


def test_it_is_valid_for_its_address_even_followed_by_its_ca(made: Certificate) -> None:
    assert serves(made.cert, HERE, NOW)
    assert serves(made.cert + made.ca, HERE, NOW)


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
def test_it_is_valid_for_no_other_address(made: Certificate, address: str) -> None:
    assert not serves(made.cert, address, NOW)


def test_it_is_valid_until_ninety_days_before_its_end(made: Certificate) -> None:
    end = read(made.cert).not_valid_after_utc

    assert timedelta(days=90) == MARGIN
    assert serves(made.cert, HERE, end - timedelta(days=90))
    assert not serves(made.cert, HERE, end - timedelta(days=90) + timedelta(seconds=1))


def test_it_is_not_valid_before_its_start(made: Certificate) -> None:
    assert not serves(made.cert, HERE, NOW - timedelta(days=1))


def test_anything_but_a_certificate_is_invalid(made: Certificate) -> None:
    assert not serves("", HERE, NOW)
    assert not serves(made.cert[:200], HERE, NOW)
    # Without a subject alternative name: the CA's own certificate.
    assert not serves(made.ca, HERE, NOW)
