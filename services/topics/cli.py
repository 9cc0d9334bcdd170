"""`medchain topics`: make the declared topics, and compare a cluster with the declaration."""

from typing import Annotated

import typer
from kafka.errors import KafkaError
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console

from services.publishing.kafka_access import KafkaAccess, KafkaSetting, kafka_access, refusal
from services.topics import cluster
from services.topics.registry import InvalidPartyError, Parties, load

app = typer.Typer(
    name="topics",
    help="The topics of the chain, as schemas/topics.yaml declares them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


class Settings(BaseSettings):
    """Where the cluster is, if the command line does not say it."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True)

    kafka: KafkaSetting | None = None


Kafka = Annotated[
    str | None,
    typer.Option("--kafka", help="Bootstrap servers; else MEDCHAIN_KAFKA, else the platform that `make up` started."),
]
OneBroker = Annotated[
    bool,
    typer.Option("--one-broker", help="The cluster is one node: one copy of everything, not production's three."),
]
Systems = Annotated[list[str] | None, typer.Option("--system", help="A system that has topics too; may be repeated.")]
Pharmacies = Annotated[list[str] | None, typer.Option("--pharmacy", help="A pharmacy that has a topic too.")]
Organisations = Annotated[
    list[str] | None, typer.Option("--organisation", help="An organisation that has a topic too.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    kafka: Kafka = None,
    *,
    one_broker: OneBroker = False,
    system: Systems = None,
    pharmacy: Pharmacies = None,
    organisation: Organisations = None,
    as_json: AsJson = False,
) -> None:
    """Make every declared topic that is missing. What is there already is left as it is."""
    access, single = _where(kafka, one_broker=one_broker)
    try:
        made = cluster.create(access, load(), _parties(system, pharmacy, organisation), one_broker=single)
    except KafkaError as error:
        raise _unreachable(access, error) from error
    if as_json:
        out.print_json(data={"created": made, "one_broker": single})
        return
    for name in made:
        out.print(f"created {name}", highlight=False)
    copies = load().one_broker.replication if single else load().replication
    out.print(f"{len(made)} created; every record is kept {copies} time{'s' if copies > 1 else ''}", highlight=False)


@app.command()
def check(
    kafka: Kafka = None,
    *,
    one_broker: OneBroker = False,
    system: Systems = None,
    pharmacy: Pharmacies = None,
    organisation: Organisations = None,
    as_json: AsJson = False,
) -> None:
    """Compare the cluster with the declaration; exit 1 on any difference."""
    access, single = _where(kafka, one_broker=one_broker)
    try:
        found = cluster.differences(access, load(), _parties(system, pharmacy, organisation), one_broker=single)
    except KafkaError as error:
        raise _unreachable(access, error) from error
    if as_json:
        out.print_json(data=[each._asdict() for each in found])
    else:
        for difference in found:
            out.print(str(difference), highlight=False, markup=False)
        out.print("no differences" if not found else f"{len(found)} differences", highlight=False)
    raise typer.Exit(1 if found else 0)


def _where(kafka: str | None, *, one_broker: bool) -> tuple[KafkaAccess, bool]:
    """The cluster's address, and whether it is a single broker: the local platform always is one."""
    from deploy.local.state import running  # noqa: PLC0415  costs time that a call with an address need not spend

    given = kafka_access(kafka) if kafka else Settings().kafka
    platform = None if given and one_broker else running()
    access = given or (KafkaAccess(platform.kafka) if platform else None)
    if access is None:
        err.print("No cluster: give --kafka or set MEDCHAIN_KAFKA, or start a platform with `make up`.")
        raise typer.Exit(2)
    return access, one_broker or (platform is not None and platform.kafka == access.servers)


def _parties(systems: list[str] | None, pharmacies: list[str] | None, organisations: list[str] | None) -> Parties:
    try:
        return Parties(
            systems=tuple(systems or ()), pharmacies=tuple(pharmacies or ()), organisations=tuple(organisations or ())
        )
    except InvalidPartyError as error:
        raise typer.BadParameter(str(error)) from error


def _unreachable(access: KafkaAccess, error: KafkaError) -> typer.Exit:
    err.print(refusal(access) or f"{access}: {type(error).__name__}: {error}", highlight=False, markup=False)
    return typer.Exit(2)
