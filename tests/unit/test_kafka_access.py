"""Access to Kafka: what the environment may say of it, what a client is made of, and why a broker takes no connection."""

import ast
import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_connection, create_server

import pytest
from cryptography import x509

from deploy.local.layout import CHECKOUT
from deploy.local.ports import LOOPBACK, choose_port
from services.command_line.named_platform import PlatformSettings
from services.publishing.kafka_access import (
    CA,
    CERTIFICATE,
    FILES,
    KEY,
    Certificates,
    KafkaAccess,
    kafka_access,
    refusal,
)
from services.recording.settings import RecordingSettings
from tests.certificates import Authority

KAFKA_PYTHON = {"KafkaConsumer", "KafkaProducer", "KafkaAdminClient"}
AIOKAFKA = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient"}
SHIPPED = ("services/**/*.py", "deploy/**/*.py", "tests/oracle/*.py")
DRIVER = "services/medication_list/driver/kafka.py"
WITHIN_S = 20.0
KEYS = {"pseudonym_key": "00" * 32, "sealing_key": "00" * 32, "read_token_key": "00" * 32}


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The authority that broker and processes trust."""
    return Authority(tmp_path / "ours", "ours")


def told(monkeypatch: pytest.MonkeyPatch, files: Certificates, **other: str) -> None:
    """Have the environment name these files, or others instead."""
    for name, path in zip(FILES, (files.ca, files.certificate, files.key), strict=True):
        monkeypatch.setenv(name, other.get(name, str(path)))


# --- Settings -----------------------------------------------------------------------------------------------------


def test_without_certificates_in_the_environment_a_client_speaks_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CA, "")
    assert kafka_access("a:1,b:2").client_settings() == {"bootstrap_servers": ["a:1", "b:2"]}


def test_with_certificates_every_client_speaks_tls_and_a_child_process_is_told_of_them(
    monkeypatch: pytest.MonkeyPatch, ours: Authority
) -> None:
    files = ours.vouch("somebody")
    told(monkeypatch, files)
    access = kafka_access("a:1")
    assert access == KafkaAccess("a:1", files)
    settings = access.client_settings()
    assert settings["security_protocol"] == "SSL"
    assert isinstance(settings["ssl_context"], ssl.SSLContext)
    for name, value in access.as_environment().items():
        monkeypatch.setenv(name, value)
    assert kafka_access("a:1") == access
    for name, value in KafkaAccess("a:1").as_environment().items():
        monkeypatch.setenv(name, value)
    assert kafka_access("a:1") == KafkaAccess("a:1")


def test_the_settings_of_services_and_of_commands_carry_the_certificates(
    monkeypatch: pytest.MonkeyPatch, ours: Authority
) -> None:
    files = ours.vouch("somebody")
    told(monkeypatch, files)
    monkeypatch.setenv("MEDCHAIN_KAFKA", "a:1")
    assert RecordingSettings(list_url="http://x", **KEYS).kafka == KafkaAccess("a:1", files)  # type: ignore[arg-type]
    assert PlatformSettings().kafka == KafkaAccess("a:1", files)


def test_what_is_told_of_certificates_and_cannot_be_used_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ours: Authority, tmp_path: Path
) -> None:
    files, another = ours.vouch("somebody"), ours.vouch("another")
    empty, absent = tmp_path / "empty", tmp_path / "absent"
    empty.touch()
    sentences = {
        CA: {"": f"{CA} is not set", str(absent): f"{CA}: {absent} cannot be read (FileNotFoundError)."},
        CERTIFICATE: {
            "": f"{CERTIFICATE} is not set",
            str(empty): f"{CERTIFICATE}: {empty} holds no certificate in PEM form.",
        },
        KEY: {
            "": f"{KEY} is not set: {CA}, {CERTIFICATE} and {KEY} are set together, or none of them.",
            str(tmp_path): f"{KEY}: {tmp_path} cannot be read (IsADirectoryError).",
            str(files.certificate): f"{KEY}: {files.certificate} holds no private key in PEM form.",
            str(
                another.key
            ): f"{CA}, {CERTIFICATE} and {KEY} name files that cannot be used together: key values mismatch.",
        },
    }
    for variable, wrong in sentences.items():
        for value, sentence in wrong.items():
            told(monkeypatch, files, **{variable: value})
            with pytest.raises(SystemExit) as ended:
                kafka_access("a:1")
            assert ended.value.code == 2
            said = capsys.readouterr().err
            assert said.startswith(sentence)
            assert said.count("\n") == 1


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call in what is shipped: the name of what is called, the call, and where it stands."""
    for path in (path for where in SHIPPED for path in CHECKOUT.glob(where)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", None))
                yield str(name), node, f"{path.relative_to(CHECKOUT)}:{node.lineno}"


def test_no_client_of_kafka_is_made_but_from_its_access() -> None:
    made, made_otherwise = 0, []
    for name, node, where in calls():
        if name == "connect" and node.args and ast.unparse(node.args[0]) in KAFKA_PYTHON:
            made += 1
        if name in KAFKA_PYTHON:
            made_otherwise.append(where)
        if name in AIOKAFKA and not any(
            each.arg is None and ast.unparse(each.value).endswith(".client_settings()") for each in node.keywords
        ):
            made_otherwise.append(where)
        if name in ("App", "BatchApp") and "broker_credentials" not in {each.arg for each in node.keywords}:
            made_otherwise.append(where)
    assert made > 15, "those that there are were looked at"
    assert made_otherwise == []


def test_nobody_waits_for_kafka_without_a_bound() -> None:
    """Where its client has stopped to look for metadata, kafka-python waits for ever in these two.

    A processor that began anew after a loss stood still for three minutes in a round of chaos, until the broker was
    restarted. aiokafka's calls of the same names look at what is known.
    """
    asked, unbounded = 0, []
    for name, node, where in calls():
        if name in ("position", "partitions_for_topic") and where.partition(":")[0] != DRIVER:
            asked += name == "position" and bool(node.args)
            bounds = {each.arg for each in node.keywords}
            if name == "partitions_for_topic" or (
                ast.unparse(node.func).startswith("consumer.") and "timeout_ms" not in bounds
            ):
                unbounded.append(where)
    assert asked > 3, "those that there are were looked at"
    assert unbounded == []


# --- Connections --------------------------------------------------------------------------------------------------


@contextmanager
def listening(files: Certificates, trusted: Path | None = None) -> Iterator[tuple[str, list[int]]]:
    """Someone who takes connections over TLS from whom `trusted` vouches for; gives the address, and the serial numbers."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=trusted or files.ca)
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    serials: list[int] = []
    with create_server((LOOPBACK, 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as secured:
                        serials.append(
                            x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"").serial_number
                        )
                        secured.recv(1)
                        secured.send(b"y")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"{LOOPBACK}:{server.getsockname()[1]}", serials
        finally:
            server.shutdown(SHUT_RDWR)
            thread.join()


def through_a_socket(context: ssl.SSLContext, host: str, port: int) -> None:
    """As kafka-python connects."""
    with create_connection((host, port)) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
        secured.send(b"x")
        secured.recv(1)  # a client is through with TLS before whoever listens has seen its certificate


def through_asyncio(context: ssl.SSLContext, host: str, port: int) -> None:
    """As aiokafka connects."""

    async def connect() -> None:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(b"x")
        await reader.read(1)
        writer.close()
        with suppress(ConnectionError):  # whoever listens is done as soon as it has heard something
            await writer.wait_closed()

    asyncio.run(connect())


def serial_of(files: Certificates) -> int:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes()).serial_number


@pytest.mark.parametrize("connect", [through_a_socket, through_asyncio], ids=["kafka-python", "aiokafka"])
def test_a_new_connection_bears_the_renewed_certificate(
    ours: Authority, connect: Callable[[ssl.SSLContext, str, int], None]
) -> None:
    files = ours.vouch("somebody")
    context = KafkaAccess("a:1", files).context
    assert context is not None
    with listening(ours.vouch("broker")) as (address, serials):
        host, _, port = address.rpartition(":")
        expected = []
        for _ in range(2):
            connect(context, host, int(port))
            expected.append(serial_of(files))
            ours.vouch("somebody")
        assert serials == expected
        assert len(set(serials)) == 2


def test_why_no_connection_comes_about_is_told_in_a_sentence(ours: Authority, tmp_path: Path) -> None:
    theirs, files = Authority(tmp_path / "theirs", "theirs"), ours.vouch("somebody")
    with listening(ours.vouch("broker")) as (address, _):
        assert refusal(KafkaAccess(address, files)) is None
        stranger = theirs.vouch("stranger")
        unknown = KafkaAccess(address, Certificates(ours.ca, stranger.certificate, stranger.key))
        assert (
            refusal(unknown, WITHIN_S)
            == f"The broker at {address} refuses the certificate of {CERTIFICATE} (tlsv1 alert unknown ca)."
        )
        expired = KafkaAccess(address, ours.vouch("late", days=0))
        assert (
            refusal(expired, WITHIN_S)
            == f"The broker at {address} refuses the certificate of {CERTIFICATE} (sslv3 alert certificate expired)."
        )
        plain = refusal(KafkaAccess(address), WITHIN_S)
        assert plain == f"The broker at {address} speaks nothing but TLS there: set {CA}, {CERTIFICATE} and {KEY}."
    with listening(theirs.vouch("broker"), ours.ca) as (address, _):
        mistrusted = refusal(KafkaAccess(address, files), WITHIN_S)
        assert mistrusted is not None
        assert mistrusted.startswith(f"The broker at {address} is none that {CA} vouches for (")
    nobody = f"{LOOPBACK}:{choose_port()}"
    assert refusal(KafkaAccess(nobody, files)) is None
    assert refusal(KafkaAccess(nobody)) is None
