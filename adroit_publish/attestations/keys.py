"""Keys by their addresses; securesystemslib does the cryptography.

    file:PATH      PEM: a private key (PKCS #8) signs, a public or a private one verifies
    awskms:KEY     a key of AWS KMS, by id, ARN or alias; it never leaves KMS

Ed25519, ECDSA and RSA. The key id is securesystemslib's: the digest of the public key.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adroit_publish.aws.errors import translated
from adroit_publish.errors import ConfigError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer, SSlibKey

_KMS_KINDS = ("secp256r1", "secp384r1", "RSA")
_WANTED = "a PEM file; openssl genpkey -algorithm ed25519 -out KEY.pem makes a private key"


def signer_at(address: str) -> Signer:
    """Returns what signs with the private key at an address.

    Raises:
        ConfigError: The file is missing, or is not a private key that can sign; or the key of KMS
            is of a kind that does not sign, or whose signatures cannot be proven here.
        RefusedError: AWS accepts no credentials for the key.
        StoreError: AWS could not be reached.
    """
    from securesystemslib.signer import AWSSigner, CryptoSigner

    scheme, _, name = address.partition(":")
    if scheme == "awskms":
        with translated(address, to="the signing key", needs="kms:GetPublicKey, kms:Sign"):
            return AWSSigner(name, _kms_key(address))
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _bytes_of(name)
    try:
        return CryptoSigner(load_pem_private_key(data, None))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "Not a private key that can sign.", where=name, got=error, wanted=_WANTED
        ) from error


def public_key_at(address: str) -> SSlibKey:
    """Returns the public key at an address; raises as ``signer_at``."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    scheme, _, name = address.partition(":")
    if scheme == "awskms":
        with translated(address, to="the public key", needs="kms:GetPublicKey"):
            return _kms_key(address)
    data = _bytes_of(name)
    with suppress(ValueError):
        return SSlibKey.from_crypto(load_pem_public_key(data))
    key: SSlibKey = signer_at(address).public_key  # type: ignore[assignment]
    return key


def _kms_key(address: str) -> SSlibKey:
    """Returns the public half of a key of KMS; raises ConfigError for a kind that cannot sign."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import AWSSigner

    try:
        key: SSlibKey = AWSSigner.import_(address.removeprefix("awskms:"))[1]
        public = load_pem_public_key(key.keyval["public"].encode())
        kind = public.curve.name if isinstance(public, EllipticCurvePublicKey) else "RSA"
    except (Error, KeyError, ValueError) as error:
        kind = repr(error)
    if kind not in _KMS_KINDS:
        raise ConfigError(
            "The key of AWS KMS cannot sign here.",
            where=address,
            got=kind,
            wanted="KeyUsage SIGN_VERIFY, KeySpec ECC_NIST_P256, ECC_NIST_P384 or RSA_*",
            next_step="aws kms create-key --key-usage SIGN_VERIFY --key-spec ECC_NIST_P256",
        )
    return key


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            "A key cannot be read.", where=path, got=error.strerror, wanted=_WANTED
        ) from error
