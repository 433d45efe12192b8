"""Who signs: a key and a certificate of this user's own, made on first use and kept in the user's data folder.

They prove that a file is as limn wrote it here, not who the user is: the certificate names no person and no authority vouches for it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from limn.errors import InputError
from limn.home import home
from limn.media.files import atomic

YEARS = 10
PEM = serialization.Encoding.PEM


def signing() -> tuple[bytes, bytes]:
    """Return certificate chain and private key, both PEM; where the data folder cannot be written they last as long as the process."""
    return _signing(home() / "signing.pem")


@cache
def _signing(file: Path) -> tuple[bytes, bytes]:
    kept = _read(file)
    if kept is not None:
        return kept
    chain, key = _made()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file, private=True) as beside:
            beside.write_bytes(key + chain)
    except (OSError, InputError):
        pass  # a picture can be signed without the key being kept
    return _read(file) or (chain, key)  # another process may have been first


def _read(file: Path) -> tuple[bytes, bytes] | None:
    """Return the kept chain and key; None where there are none, or where they are damaged or run out within a day."""
    try:
        whole = file.read_bytes()
        start = whole.index(b"-----BEGIN CERTIFICATE")
        certificate = x509.load_pem_x509_certificates(whole[start:])[0]
        serialization.load_pem_private_key(whole[:start], None)
    except (OSError, ValueError, IndexError):
        return None
    return (whole[start:], whole[:start]) if certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1) else None


def _made() -> tuple[bytes, bytes]:
    """Make a signing key and its chain of two: C2PA takes no self-signed signer, so a root signs it once and its key is thrown away."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("limn local root, unverified", root_key, None, root_key)
    leaf = _certificate("limn local signer, unverified", key, root, root_key)
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(PEM) + root.public_bytes(PEM), secret


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return a certificate with the profile of the C2PA specification, 14.5: end entities may only sign."""
    top = issuer is None
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "limn"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(not top, False, False, False, False, top, top, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=top, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not top:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
