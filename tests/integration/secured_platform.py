"""The platform on a broker that takes our processes by their certificates alone, with the rights of the Kubernetes manifests."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from deploy.kubernetes.manifests import our_user, user_of
from deploy.local.broker import Broker
from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.ports import LOOPBACK, choose_port, is_listening
from deploy.local.program import Child, Program
from deploy.services import Service
from services.command_line.app import COMMAND
from services.publishing.kafka_access import KafkaAccess
from services.topics.registry import Parties
from tests.certificates import Authority

# Whoever comes in plain text is the test itself, and may do everything; nobody else has a right that was not given.
SECURED: Final = """\
ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={ca}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"""


class SecuredBroker(Broker):
    """A broker with one more listener, at `secured_address`, for those whom the authority vouches for."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self._secured_port = choose_port()
        self._ca = authority.ca
        super().__init__(directory)
        files = authority.vouch("broker")
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "broker.pem").write_bytes(files.key.read_bytes() + files.certificate.read_bytes())

    @property
    def secured_address(self) -> str:
        """host:port."""
        return f"{LOOPBACK}:{self._secured_port}"

    def _settings(self, data: Path) -> str:
        settings = super()._settings(data)
        listener = f",TLS://{self.secured_address}"
        more = {"listeners": listener, "advertised.listeners": listener, "listener.security.protocol.map": ",TLS:SSL"}
        for name, value in more.items():
            settings = re.sub(rf"^({re.escape(name)}=.*)$", rf"\1{value}", settings, flags=re.MULTILINE)
        return settings + SECURED.format(folder=self.directory, ca=self._ca)


class SecuredPlatform(Platform):
    """Every process has a certificate of its own, and its KafkaUser's rights."""

    def __init__(self, directory: Path, parties: Parties) -> None:
        data, run = directory / "data", directory / "run"
        super().__init__(data, run=run, usual_ports=False, workers=1, parties=parties)
        self.authority = Authority(directory / "certificates", "ours")
        self.broker: SecuredBroker = SecuredBroker(self.directory / "kafka", self.authority)

    def kafka_access(self, user: str) -> KafkaAccess:
        """By a certificate of the process' own, which is given its rights now."""
        return self.bearing(user_of(user), our_user(user))

    def bearing(self, name: str, *users: dict[str, Any]) -> KafkaAccess:
        """Access by a certificate in this name, which is given the rights of these KafkaUsers."""
        acls = [each for user in users for each in user["spec"]["authorization"]["acls"]]
        if acls:
            with closing(KafkaAdminClient(bootstrap_servers=self.kafka_address)) as admin:
                admin.create_acls([each for acl in acls for each in _rights(name, acl)])
        return KafkaAccess(self.broker.secured_address, self.authority.vouch(name))

    def beside(self, service: Service, access: KafkaAccess) -> tuple[Child, str]:
        """Another process of a service, with this access, ready once it listens; and its URL."""
        port = choose_port()
        program = Program(
            name=f"{service.name}-beside",
            argv=(sys.executable, "-m", service.module),
            log=self.directory / "logs" / f"{service.name}-beside.log",
            ready=lambda: is_listening(port),
            environment=self.environment(service, self._names_of(service)[0])
            | access.as_environment()
            | {"MEDCHAIN_PORT": str(port)},
        )
        return Child(program), f"http://{LOOPBACK}:{port}"

    def run(self, access: KafkaAccess, *command: str) -> subprocess.CompletedProcess[str]:
        """`medchain` in another process, with this access."""
        urls = {name: self.url(name) for name in self._ports}
        told = {
            **os.environ,
            **self.environment(self.services[0], self.services[0].name),
            **access.as_environment(),
            "MEDCHAIN_SERVICES": ",".join(f"{name}={url}" for name, url in urls.items()),
            **{f"MEDCHAIN_{name.upper()}_URL": urls[name] for name in ("prescriber", "pharmacy")},
            "MEDCHAIN_LIST_URL": self.url("medication-list"),
        }
        return subprocess.run([*COMMAND, *command], cwd=CHECKOUT, env=told, capture_output=True, text=True, check=False)  # noqa: S603


def _rights(name: str, acl: dict[str, Any]) -> Iterable[ACL]:
    """A manifest's entry as the broker takes it, as Strimzi's operator would give it."""
    resource = acl["resource"]
    kind = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.CLUSTER}[resource["type"]]
    pattern = {"literal": ACLResourcePatternType.LITERAL, "prefix": ACLResourcePatternType.PREFIXED}
    place = ResourcePattern(
        kind, resource.get("name", "kafka-cluster"), pattern[resource.get("patternType", "literal")]
    )
    for operation in acl["operations"]:
        known = ACLOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", operation).upper()]
        yield ACL(f"User:CN={name}", "*", known, ACLPermissionType.ALLOW, place)
