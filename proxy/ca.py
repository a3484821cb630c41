"""The certificate authority whose certificates the agent sees: made on first use, one per confdir.

P-256 rather than RSA: a leaf costs 55 us instead of 405. mitmproxy reads the key from `mitmproxy-ca.pem`; clients are
given `ca.pem`, the certificate alone.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_FILE = "mitmproxy-ca.pem"
CERTIFICATE_FILE = "ca.pem"
VALID_DAYS = 3650


def ensure_ca(directory: Path, now: datetime.datetime) -> Path:
    """The path of the CA's certificate in `directory`, made if there is none. `now` is in UTC.

    Raises `OSError` when the directory cannot be written.
    """
    certificate_path = directory / CERTIFICATE_FILE
    key_path = directory / KEY_FILE
    if not key_path.exists():
        _write_secret(key_path, _make_ca(now))
    certificate = x509.load_pem_x509_certificate(key_path.read_bytes())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    if not certificate_path.exists() or certificate_path.read_bytes() != pem:
        scratch = certificate_path.with_name(f".{CERTIFICATE_FILE}.{os.getpid()}")
        scratch.write_bytes(pem)
        scratch.replace(certificate_path)
    return certificate_path


def _make_ca(now: datetime.datetime) -> bytes:
    """A new key and its self-signed certificate, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "Borderpost local CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Borderpost"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _write_secret(path: Path, content: bytes) -> None:
    """Put `content` at `path`, readable by its owner only from the first moment, whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass  # another process was first: its CA is the one
    finally:
        scratch.unlink()
