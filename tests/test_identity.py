"""Secrets from files and systemd credentials, and edge's own certificate."""

import stat

import pytest

from drivers import identity
from drivers.driver import DeviceError
from drivers.identity import Secret


def test_a_password_comes_from_a_file_of_its_own(tmp_path):
    kept = tmp_path / "password"
    kept.write_text("geheim\n")
    kept.chmod(0o644)
    with pytest.raises(DeviceError) as caught:
        Secret(file=str(kept)).read()
    assert f"chmod 600 {kept}" in caught.value.hint
    kept.chmod(0o600)
    assert Secret(file=str(kept)).read() == "geheim"
    with pytest.raises(DeviceError, match="No such file"):
        Secret(file=str(tmp_path / "absent")).read()


def test_a_password_comes_from_a_systemd_credential(tmp_path, monkeypatch):
    (tmp_path / "robot-password").write_text("geheim")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(DeviceError) as caught:
        Secret(credential="robot-password").read()
    assert "LoadCredential=robot-password" in caught.value.hint
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Secret(credential="robot-password").read() == "geheim"


def test_the_own_certificate_is_made_once_and_private(tmp_path):
    from cryptography import x509

    first = identity.own_identity(tmp_path, "client", "urn:edge:here")
    again = identity.own_identity(tmp_path, "client", "urn:edge:renamed")
    assert first == again
    assert first.uri == "urn:edge:here"
    assert first.path.read_bytes() == first.certificate
    assert stat.S_IMODE((tmp_path / "client.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["client.der", "client.pem"]
    certificate = x509.load_der_x509_certificate(first.certificate)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.data_encipherment and usage.key_encipherment and usage.content_commitment
    certificate.verify_directly_issued_by(certificate)
    (tmp_path / "client.pem").write_text("damaged")
    with pytest.raises(DeviceError, match="no certificate"):
        identity.own_identity(tmp_path, "client", "urn:edge:here")


def test_state_lies_where_the_service_keeps_it(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGE_STATE", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'service'}:/elsewhere")
    assert identity.state_directory("pki") == tmp_path / "service" / "pki"
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "own"))
    assert identity.state_directory("pki") == tmp_path / "own" / "pki"
    assert stat.S_IMODE((tmp_path / "own" / "pki").stat().st_mode) == 0o700
    monkeypatch.delenv("EDGE_STATE")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert identity.state_directory() == tmp_path / ".local" / "state" / "edge"
