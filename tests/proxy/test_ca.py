"""The certificate authority that agents are shown."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.ca import CERTIFICATE_FILE, KEY_FILE, ensure_ca

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_the_key_is_for_its_owner_only_and_the_certificate_holds_no_key(tmp_path: Path) -> None:
    certificate = ensure_ca(tmp_path, NOW)
    assert certificate == tmp_path / CERTIFICATE_FILE
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert b"PRIVATE" not in certificate.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {CERTIFICATE_FILE, KEY_FILE}


def test_it_is_an_authority_for_servers_on_p256(tmp_path: Path) -> None:
    certificate = x509.load_pem_x509_certificate(ensure_ca(tmp_path, NOW).read_bytes())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc


def test_it_is_made_once_and_its_certificate_is_put_back_when_it_is_lost(tmp_path: Path) -> None:
    first = ensure_ca(tmp_path, NOW).read_bytes()
    (tmp_path / CERTIFICATE_FILE).unlink()
    assert ensure_ca(tmp_path, NOW + datetime.timedelta(days=1)).read_bytes() == first
