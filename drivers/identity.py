"""Who edge is to a device: passwords kept out of the cell file, and application certificates (OPC 10000-6, 6.2.2)."""

import hashlib
import os
import secrets
import socket
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from drivers.driver import DeviceError, File
from drivers.value import BAD_CONFIGURATION

KEY_BITS = 2048
# Fixed dates: the clock of a Raspberry Pi may be decades off when the certificate is made.
VALID_FROM = datetime(2020, 1, 1, tzinfo=UTC)
VALID_UNTIL = datetime(2049, 12, 31, tzinfo=UTC)


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a password is kept: `{credential: NAME}` (systemd's LoadCredential) or `{file: PATH}`."""

    credential: Annotated[
        str | None, msgspec.Meta(description="The name of a systemd credential.", examples=["robot-password"])
    ] = None
    file: Annotated[File | None, msgspec.Meta(description="A file that only edge's user may read.")] = None

    def __post_init__(self) -> None:
        if (self.credential is None) == (self.file is None):
            raise ValueError("a password is kept in {credential: NAME} or {file: PATH}, one of them")
        if self.credential is not None and ("/" in self.credential or self.credential in ("", ".", "..")):
            raise ValueError(f"`{self.credential}` is no name of a credential")

    def read(self) -> str:
        """The password, without the newline at its end. Raises DeviceError with advice where it cannot be had."""
        path = self._credential_path() if self.credential is not None else Path(self.file or "").expanduser()
        try:
            if self.file is not None and stat.S_IMODE(path.stat().st_mode) & 0o044:
                raise _misconfigured(f"{path} may be read by other users of this machine", f"run: chmod 600 {path}")
            return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise _misconfigured(
                f"the password in {path} cannot be read: {error.strerror}",
                "does the file exist, and may edge's user read it?",
            ) from error
        except UnicodeDecodeError as error:
            raise _misconfigured(f"the password in {path} is not UTF-8 text", "write it as plain text") from error

    def _credential_path(self) -> Path:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise _misconfigured(
                f"there is no credential `{self.credential}`: systemd gave none to edge",
                f"add LoadCredential={self.credential}:PATH to its unit; where edge runs by hand, use {{file: PATH}}",
            )
        return Path(directory) / (self.credential or "")


class Identity(msgspec.Struct, frozen=True):
    """An application certificate: `path` to hand to the other side, DER certificate, DER private key, its URI."""

    path: Path
    certificate: bytes
    key: bytes
    uri: str


def state_directory(*parts: str) -> Path:
    """A private directory in edge's state: $EDGE_STATE, systemd's $STATE_DIRECTORY, or ~/.local/state/edge.

    Raises DeviceError.
    """
    try:
        root = os.environ.get("EDGE_STATE") or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        path = Path(root) if root else Path.home() / ".local" / "state" / "edge"
        path = path.joinpath(*parts)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise _misconfigured(
            f"edge has no place to keep its certificate: {error}",
            "set EDGE_STATE to a directory that edge's user may write",
        ) from error
    return path


def own_identity(directory: Path, name: str, uri: str) -> Identity:
    """The identity `name` kept in `directory`, made the first time: NAME.pem (with the key) and NAME.der.

    Making a key takes up to some seconds on a small machine: call it in a thread. Raises DeviceError.
    """
    kept, shown = directory / f"{name}.pem", directory / f"{name}.der"
    try:
        if not kept.exists():
            write_once(kept, _self_signed(uri), mode=0o600)
        identity = load_identity(kept, kept)
        if not shown.exists():
            write_once(shown, identity.certificate, mode=0o644)
    except OSError as error:
        raise _misconfigured(
            f"edge cannot keep its certificate in {directory}: {error.strerror}",
            "set EDGE_STATE to a directory that edge's user may write",
        ) from error
    return msgspec.structs.replace(identity, path=shown)


def load_identity(certificate: Path, key: Path) -> Identity:
    """A certificate and its private key, each PEM or DER. Raises DeviceError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    parsed = x509.load_der_x509_certificate(read_certificate(certificate))
    data = _read(key)
    try:
        load = serialization.load_pem_private_key if b"-----BEGIN" in data else serialization.load_der_private_key
        private = load(data, password=None)
    except (ValueError, TypeError) as error:
        raise _misconfigured(f"{key} holds no private key without a passphrase", "is it PEM or DER?") from error
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Identity(
        path=certificate,
        certificate=parsed.public_bytes(serialization.Encoding.DER),
        key=private.private_bytes(serialization.Encoding.DER, pkcs8, plain),
        uri=uris[0] if uris else application_uri(),
    )


def read_certificate(path: Path) -> bytes:
    """The first certificate of a PEM or DER file, as DER. Raises DeviceError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = _read(path)
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
        return load(data).public_bytes(Encoding.DER)
    except ValueError as error:
        raise _misconfigured(f"{path} is no certificate", "give a certificate in PEM or DER form") from error


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a DER certificate as tools show it, shortened to what a person compares."""
    return hashlib.sha256(certificate).digest()[:8].hex(":").upper() + "…"


def application_uri() -> str:
    """The URI that names this installation of edge."""
    return f"urn:edge:{socket.gethostname()}"


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise _misconfigured(
            f"{path} cannot be read: {error.strerror}", "does it exist, may edge's user read it?"
        ) from error


def write_once(path: Path, data: bytes, *, mode: int) -> None:
    """Writes a file whole or not at all; where two processes do so at once, the first one's stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _self_signed(uri: str) -> bytes:
    """A new key and its self-signed application instance certificate, in one PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    host = socket.gethostname()
    name = x509.Name([
        x509.NameAttribute(NameOID.COMMON_NAME, f"edge@{host}"[:64]),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "edge"),
    ])  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    certificate = (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number(), VALID_FROM, VALID_UNTIL)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(host)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(usage, True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(identifier, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()) + certificate.public_bytes(pem)


def _misconfigured(text: str, hint: str) -> DeviceError:
    return DeviceError(text, hint, status=BAD_CONFIGURATION)
