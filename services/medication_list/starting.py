"""What the relay and the read API check before they start: whether their log and their store belong together."""

from services.canonical_log import get_logger
from services.medication_list.generations import GenerationRefusedError, refuse_another_log
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.settings import MedicationListSettings
from services.medication_list.store.link import Link
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.redis_roles import RedisRoles


def refuse_to_start(settings: MedicationListSettings) -> None:
    """Raises SystemExit, with one sentence, where the store holds the view of another log.

    A log or a store that is away is no reason: the process starts, and says that it is not ready.
    """
    link = Link(settings.redis)
    try:
        refuse_another_log(RedisRoles(link), KafkaSourceLog(settings.kafka))
    except GenerationRefusedError as refusal:
        raise SystemExit(str(refusal)) from None
    except (StoreUnavailableError, SourceLogUnavailableError) as error:
        get_logger().warning("started_unchecked", error_type=type(error).__name__)
    finally:
        link.close()
