"""Where the brokers are and which certificate a process uses: what every Kafka client is made from."""

from __future__ import annotations

import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Self

from pydantic import BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

CA: Final = "MEDCHAIN_KAFKA_CA"
CERTIFICATE: Final = "MEDCHAIN_KAFKA_CERTIFICATE"
KEY: Final = "MEDCHAIN_KAFKA_KEY"
FILES: Final = (CA, CERTIFICATE, KEY)
_TOGETHER: Final = f"{CA}, {CERTIFICATE} and {KEY}"
_REFUSED: Final = 2
_TOLD_WITHIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority for brokers, this process' certificate, and its key."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """The files as they are now. Raises OSError (ssl.SSLError among them)."""
        context = ssl.create_default_context(cafile=self.ca)
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(self.certificate, self.key, password="")
        return context


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """`servers`: host:port[,host:port]. In plain text without certificates; with them mutual TLS, and nothing else."""

    servers: str
    certificates: Certificates | None = None

    def __str__(self) -> str:
        return self.servers

    @property
    def addresses(self) -> list[str]:
        """Each host:port."""
        return self.servers.split(",")

    @property
    def context(self) -> ssl.SSLContext | None:
        """Reads the files anew for each connection, so that a renewed certificate needs no restart; None in plain text."""
        return None if self.certificates is None else _RenewedContext(self.certificates)

    def client_settings(self) -> dict[str, Any]:
        """What every client is made with, of kafka-python and of aiokafka."""
        if self.certificates is None:
            return {"bootstrap_servers": self.addresses}
        return {"bootstrap_servers": self.addresses, "security_protocol": "SSL", "ssl_context": self.context}

    def as_environment(self) -> dict[str, str]:
        """A child process' settings for the same access, whatever its parent's environment holds."""
        files = self.certificates
        named = ("", "", "") if files is None else (str(files.ca), str(files.certificate), str(files.key))
        return {"MEDCHAIN_KAFKA": self.servers} | dict(zip(FILES, named, strict=True))


class _RenewedContext(ssl.SSLContext):
    """Makes a separate context for each connection: one in use by another thread must not be changed."""

    def __new__(cls, _: Certificates) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """What kafka-python calls."""
        return self._certificates.context().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio and uvloop call, and so aiokafka."""
        return self._certificates.context().wrap_bio(*args, **options)


# --- From the environment -----------------------------------------------------------------------------------------


class _Files(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_KAFKA_", frozen=True, env_ignore_empty=True)

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def kafka_access(servers: str) -> KafkaAccess:
    """The access to these servers by the files that the environment names; in plain text where it names none.

    Raises UnusableFilesExit, after one sentence on standard error, where it names too few of them, or what cannot be used.
    """
    told = _Files()
    named = dict(zip(FILES, (told.ca, told.certificate, told.key), strict=True))
    missing = [name for name, path in named.items() if path is None]
    if len(missing) == len(FILES):
        return KafkaAccess(servers)
    if told.ca is None or told.certificate is None or told.key is None:
        _refuse(f"{missing[0]} is not set: {_TOGETHER} are set together, or none of them.")
    files = Certificates(told.ca, told.certificate, told.key)
    _check(files)
    return KafkaAccess(servers, files)


KafkaSetting = Annotated[
    KafkaAccess, NoDecode, BeforeValidator(lambda told: kafka_access(told) if isinstance(told, str) else told)
]
"""A setting `kafka`: MEDCHAIN_KAFKA, with the files that the environment names."""


def _check(files: Certificates) -> None:
    """At start, and not with the first connection, when nobody is watching any more."""
    for name, path in ((CA, files.ca), (CERTIFICATE, files.certificate), (KEY, files.key)):
        what = "PRIVATE KEY" if name == KEY else "CERTIFICATE"
        try:
            text = path.read_bytes()
        except OSError as error:
            _refuse(f"{name}: {path} cannot be read ({type(error).__name__}).")
        if f"{what}-----".encode() not in text:
            _refuse(f"{name}: {path} holds no {what.lower()} in PEM form.")
    try:
        files.context()
    except OSError as error:
        _refuse(f"{_TOGETHER} name files that cannot be used together: {_words(error)}.")


class UnusableFilesExit(SystemExit):
    """Ends the process; `sentence` is what it has said on standard error."""

    def __init__(self, sentence: str) -> None:
        super().__init__(_REFUSED)
        self.sentence = sentence


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    raise UnusableFilesExit(sentence)


# --- Why not ------------------------------------------------------------------------------------------------------


def no_right_to(topic: str) -> str:
    """The sentence for a user without the right to see a topic."""
    return f"This process' certificate gives it no right to topic {topic}."


def refusal(kafka: KafkaAccess, within_s: float = _TOLD_WITHIN_S) -> str | None:
    """Why a broker that listens takes no connection of ours, as a sentence; None where certificates are not the reason.

    The libraries tell no more than that a connection ended. `within_s`: how long to connect may take, and to be refused.
    """
    for address in kafka.addresses:
        host, _, port = address.rpartition(":")
        try:
            connected = socket.create_connection((host, int(port)), timeout=within_s)
        except OSError:
            continue
        with connected:
            if kafka.certificates is None:
                return _speaks_tls(connected, address)
            return _refused(kafka.certificates, connected, host, address)
    return None


def _refused(files: Certificates, connected: socket.socket, host: str, address: str) -> str | None:
    try:
        with files.context().wrap_socket(connected, server_hostname=host) as secured:
            # In TLS 1.3 a client learns only after the handshake whether the broker accepts its certificate.
            secured.recv(1)
    except TimeoutError:
        return None
    except OSError as error:
        match getattr(error, "reason", None):
            case "CERTIFICATE_VERIFY_FAILED":
                return f"The broker at {address} is none that {CA} vouches for ({_words(error)})."
            case "WRONG_VERSION_NUMBER":
                return f"The broker at {address} speaks no TLS there, and {CA} asks for it."
            case _:
                return f"The broker at {address} refuses the certificate of {CERTIFICATE} ({_words(error)})."
    return f"The broker at {address} ends every connection with the certificate of {CERTIFICATE}."


def _speaks_tls(connected: socket.socket, address: str) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.wrap_socket(connected).close()
    except OSError:
        return None
    return f"The broker at {address} speaks nothing but TLS there: set {_TOGETHER}."


def _words(error: OSError) -> str:
    """OpenSSL's own, without file and line of its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else type(error).__name__
