"""Make and check the certificate of a server that has an address and no name."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=3653)  # ten years
# The next bootstrap renews a certificate that expires within this time.
MARGIN = timedelta(days=90)
# The machines' clocks may be slightly behind this one's.
SKEW = timedelta(hours=1)
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
          "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


@dataclass(frozen=True)
class Certificate:
    """A server's certificate, its key, and the CA that clients trust, as PEM."""

    ca: str
    cert: str
    key: str = field(repr=False)


def certificate(address: str) -> Certificate:
    """Return a certificate for an IP address, signed by a CA that signs nothing else.

    The CA's key is never kept, so nobody can sign a second one. Raises ValueError
    if the address isn't an IP address.
    """
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = _name(f"Tally's CA for {address} alone"), _name(address)
    ca = _builder(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(True, path_length=0)) \
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    cert = _builder(name, ca_name, key, ca_key, x509.BasicConstraints(False, path_length=None)) \
        .add_extension(_usage("digital_signature"), critical=True) \
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False) \
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]),
                       critical=False)
    return Certificate(_sign(ca, ca_key), _sign(cert, ca_key), _private(key))


def serves(cert: str, address: str, now: datetime) -> bool:
    """Return whether a certificate is for this IP address and won't expire soon."""
    try:
        found = x509.load_pem_x509_certificate(cert.encode())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return ip_address(address) in names.get_values_for_type(x509.IPAddress) \
        and found.not_valid_before_utc <= now <= found.not_valid_after_utc - MARGIN


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey,
             issuer_key: ec.EllipticCurvePrivateKey, constraints: x509.BasicConstraints
             ) -> x509.CertificateBuilder:
    """Return a builder with what both certificates share."""
    now, public = datetime.now(UTC), key.public_key()
    return x509.CertificateBuilder() \
        .subject_name(subject).issuer_name(issuer).public_key(public) \
        .serial_number(x509.random_serial_number()) \
        .not_valid_before(now - SKEW).not_valid_after(now + LIFETIME) \
        .add_extension(constraints, critical=True) \
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False) \
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(
            issuer_key.public_key()), critical=False)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*usages: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in usages for usage in USAGES})


def _sign(cert: x509.CertificateBuilder, ca_key: ec.EllipticCurvePrivateKey) -> str:
    return cert.sign(ca_key, SHA256()).public_bytes(Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
