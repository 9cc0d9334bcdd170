"""How an operator's command on generations ends: with one sentence if something is refused, and exit codes for scripts."""

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.framing import RegistryUnavailableError
from services.casework.access_record import AccessNotRecordedError, ReasonRefusedError
from services.command_line.named_platform import NoPlatformError
from services.command_line.telling import Exit, tell_error
from services.medication_list.generations import GenerationRefusedError
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.store.port import StoreUnavailableError
from services.schema_registry import RegistryRefusedError


@contextmanager
def answered(*, as_json: bool) -> Iterator[None]:
    """Turn what was refused, and what is away, into one sentence and the exit code for it."""
    try:
        yield
    except (
        NoPlatformError,
        GenerationRefusedError,
        RegistryRefusedError,
        ReasonRefusedError,
        AccessNotRecordedError,
    ) as refusal:
        tell_error(str(refusal), Exit.CANNOT, as_json=as_json)
    except (StoreUnavailableError, SourceLogUnavailableError, RegistryUnavailableError) as error:
        tell_error(f"Log, store or registry do not answer: {error}.", Exit.CANNOT, as_json=as_json)
