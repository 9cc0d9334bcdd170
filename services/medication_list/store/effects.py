"""One entry of the outbox: what is to be sent, to whom, and which record of the log it comes from."""

from typing import Literal, get_args

import msgspec

EffectKind = Literal["dispense-orders", "notices", "submission-receipts"]
"""The topic kind: the topic itself is `<kind>.<recipient>`."""
EFFECT_KINDS: tuple[EffectKind, ...] = get_args(EffectKind)


class Effect(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An effect as it waits in the outbox.

    `source_offset` stands first: the write function reads it to leave out what was relayed before a loss.
    `recipient` is a pharmacy's or organisation's number, or a system; `key` the record's key; `payload` contract bytes
    of a DispenseOrder, Notice or SubmissionReceipt. `patient` is the pseudonym that the sealed identity in a dispense
    order is bound to, None where nothing is sealed; it goes no further than the relay.
    """

    source_offset: int
    kind: EffectKind
    recipient: str
    key: str
    effect_id: str
    payload: bytes
    patient: str | None = None

    @property
    def topic(self) -> str:
        """The one topic of this recipient."""
        return f"{self.kind}.{self.recipient}"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Effect)


def encode_effect(effect: Effect) -> bytes:
    """The entry's bytes (msgpack array)."""
    return _encoder.encode(effect)


def decode_effect(entry: bytes) -> Effect:
    """The effect in an entry's bytes. Raises msgspec.DecodeError."""
    return _decoder.decode(entry)
