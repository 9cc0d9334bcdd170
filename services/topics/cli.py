"""`medchain topics`: create the declared topics, and compare a cluster with the declaration."""

from collections.abc import Sequence
from typing import Annotated

import typer

from services.command_line.named_platform import NoPlatformError, named_platform, runs_here
from services.command_line.telling import AsJson, DryRun, Exit, ending, tell
from services.publishing.kafka_access import KafkaAccess
from services.topics import cluster
from services.topics.cluster import ClusterAwayError
from services.topics.registry import InvalidPartyError, Parties, load

app = typer.Typer(
    name="topics",
    help="The topics of the chain, as schemas/topics.yaml declares them. Exit codes: 0 done, 1 there are differences, 2 refused "
    "or cannot be done.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


@app.command()
def create(
    kafka: Kafka = None,
    *,
    one_broker: OneBroker = False,
    system: Systems = None,
    pharmacy: Pharmacies = None,
    organisation: Organisations = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make every declared topic that is missing. What is there already is left as it is."""
    with ending(Exit.CANNOT, NoPlatformError, ClusterAwayError, InvalidPartyError, as_json=as_json):
        access, single = _where(kafka, one_broker=one_broker)
        parties = _parties(system, pharmacy, organisation)
        with cluster.asked(access):
            names = (cluster.missing if dry_run else cluster.create)(access, load(), parties, one_broker=single)
    document = {"would_create" if dry_run else "created": names, "one_broker": single}
    tell(document, _made(names, one_broker=single, dry_run=dry_run), as_json=as_json)


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
    with ending(Exit.CANNOT, NoPlatformError, ClusterAwayError, InvalidPartyError, as_json=as_json):
        access, single = _where(kafka, one_broker=one_broker)
        parties = _parties(system, pharmacy, organisation)
        with cluster.asked(access):
            found = cluster.differences(access, load(), parties, one_broker=single)
    lines = [*map(str, found), f"{len(found)} differences" if found else "no differences"]
    tell([each._asdict() for each in found], "\n".join(lines), as_json=as_json)
    raise typer.Exit(Exit.NOT_WELL if found else Exit.DONE)


def _made(names: Sequence[str], *, one_broker: bool, dry_run: bool) -> str:
    copies = load().one_broker.replication if one_broker else load().replication
    kept = f"every record is kept {copies} time{'s' if copies > 1 else ''}"
    if not dry_run:
        return "\n".join([*(f"created {name}" for name in names), f"{len(names)} created; {kept}"])
    would = [f"would create {name}" for name in names]
    return "\n".join([*would, f"{len(names)} would be created; {kept}. Nothing was done."])


def _where(kafka: str | None, *, one_broker: bool) -> tuple[KafkaAccess, bool]:
    """The cluster's address, and whether it is a single broker: the local platform always is one. Raises NoPlatformError."""
    access = named_platform(needs_redis=False, kafka=kafka).kafka
    return access, one_broker or runs_here(access)


def _parties(systems: list[str] | None, pharmacies: list[str] | None, organisations: list[str] | None) -> Parties:
    """Raises InvalidPartyError."""
    return Parties(
        systems=tuple(systems or ()), pharmacies=tuple(pharmacies or ()), organisations=tuple(organisations or ())
    )
