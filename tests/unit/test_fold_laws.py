"""The laws of the fold, held over histories that nobody thought of."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_values

from schemas import events as ev
from services.medication_list.fold.state import META, Waiting
from services.medication_list.fold.stopping import is_stopped
from services.medication_list.stored.packing import pack_field, unpack_field
from tests.unit import fold_world as w
from tests.unit.fold_world import Said, Then, World, at, id_of, on, tablets

LAST_DAY: Final = 40
CLOCKS: Final = tuple(at(day) for day in (LAST_DAY + 1, 60, 61, 100, 101, 366, 800))

days = st.integers(min_value=0, max_value=LAST_DAY - 1)
# Few of everything, so that what can meet does.
instants = st.sampled_from([at(day) for day in (0, 3, 6, 10, 20, 30)])
prescriptions = st.sampled_from(["R1", "R2", "R3", "R4"])
treatments = st.sampled_from(["T1", "T1", "T1", "T2"])
hand_outs = st.sampled_from(["D1", "D2", "D3", "D4", "D5"])
doctors = st.sampled_from(["A", "B"])
pharmacies = st.sampled_from(["P", "Q"])
amounts = st.sampled_from([tablets(n) for n in (5, 40, 50, 89, 95, 100, 105, 200)])
maybe_days = st.none() | st.sampled_from([on(n) for n in (0, 10, 35, 60, 100)])


# --- Facts ------------------------------------------------------------------------------------------------------------


def _issued(terms: dict[str, Any], at_ms: int) -> Said:
    return w.issued(at_ms=at_ms, signed_ms=at_ms, **terms)


prescriptions_signed = st.builds(
    _issued,
    st.fixed_dictionaries(
        {
            "rx": prescriptions,
            "treatment": treatments,
            "by": doctors,
            "refills": st.integers(min_value=0, max_value=2),
            "earliest": maybe_days,
            "valid_until": st.sampled_from([on(20), on(90), on(365)]),
            "renews": st.none() | prescriptions,
            "series": st.none() | st.sampled_from(["S1", "S2"]),
        }
    ),
    instants,
)
handed_out = st.builds(
    w.dispensed,
    hand_outs,
    prescriptions,
    by=pharmacies,
    at_ms=instants,
    quantity=amounts,
    period_completed=st.booleans(),
    completed=st.booleans(),
)
facts = st.one_of(
    prescriptions_signed,
    prescriptions_signed,
    handed_out,
    handed_out,
    st.builds(lambda dispense, by: w.reversed_(dispense, by=by), hand_outs, pharmacies),
    st.builds(lambda rx, by, at_ms: w.recalled(rx, by=by, at_ms=at_ms), prescriptions, doctors, instants),
    st.builds(lambda treatment, at_ms: w.recorded(treatment, at_ms=at_ms), treatments, instants),
    st.builds(lambda treatment, by, at_ms: w.discontinued(treatment, at_ms, by=by), treatments, doctors, instants),
    st.builds(lambda day: w.died(on(day)), days),
)


def _natural(said: Said) -> tuple[object, ...]:
    """What a fact makes known, which is made known once; a recall or stop may be said as often as one likes."""
    body = said.body
    match body:
        case ev.PrescriptionIssued(prescription=natural) | ev.MedicationDispensed(dispense=natural):
            return type(body), natural
        case ev.TreatmentRecorded(treatment=natural):
            return type(body), natural
        case ev.DispenseReversed(reversal=natural):
            return type(body), natural
        case ev.PatientDied():
            return (type(body),)
        case _:
            return type(body), said


sets_of_facts = st.lists(facts, min_size=4, max_size=14, unique_by=_natural)


def _interleaved(said: Sequence[Said], seed: int) -> list[Said]:
    """Another order of arrival, in which each sender's facts stay in their own order."""
    queues: dict[str, list[Said]] = {}
    for each in said:
        queues.setdefault(each.by, []).append(each)
    dice, merged = Random(seed), []
    while queues:
        sender = dice.choice(sorted(queues))
        merged.append(queues[sender].pop(0))
        if not queues[sender]:
            del queues[sender]
    return merged


def _arrived(said: Sequence[Said], first_day: int) -> World:
    """They come one a minute, some while they happen and some long after: from a given day on."""
    world = World(whole_too=False, now_ms=at(first_day))
    for index, each in enumerate(said):
        received_ms = at(first_day) + index * w.MINUTE_MS
        at_ms = each.at_ms if each.at_ms is not None else at(first_day)
        world.when(Said(each.by, each.body, at_ms, received_ms))
    return world


def _waiting_reports(world: World) -> set[tuple[str, str]]:
    """Hand-outs that wait for their prescription, and what waits about them."""
    found = set()
    for name, packed in world.fields.items():
        value = unpack_field(name, packed) if name.startswith("waiting:") else None
        if isinstance(value, Waiting):
            for fact in value.facts:
                body = fact.event.body
                if isinstance(body, ev.MedicationDispensed | ev.DispenseReversed):
                    found.add((type(body).__name__, body.dispense))
    return found


def _what_the_law_is_about(world: World) -> dict[str, object]:
    seen: dict[str, object] = {"waiting": _waiting_reports(world)}
    for rx in ("R1", "R2", "R3", "R4"):
        if world.knows(rx):
            letters = [world.status(rx, clock) for clock in CLOCKS]
            standing = {each.dispense for each in world.prescription(rx).hand_outs if not each.reversed}
            used = world.usage(rx)
            seen[rx] = (
                ["closed" if letter in "RT" else letter for letter in letters],
                standing,
                used.periods,
                used.amount,
                world.prescription(rx).treatment,
            )
    for treatment in ("T1", "T2"):
        if world.treatment_is(treatment) != "unknown":
            state = world.treatment(treatment)
            seen[treatment] = (state.kind, state.newest, is_stopped(state))
    return seen


@settings(max_examples=400)
@given(sets_of_facts, st.integers(min_value=0), st.sampled_from([LAST_DAY, 30, 5]))
def test_the_same_facts_in_any_order_of_arrival_come_to_the_same_end(
    said: list[Said], seed: int, first_day: int
) -> None:
    """What can be dispensed at any time to come, the hand-outs that stand, and the entries."""
    one, other = _arrived(said, first_day), _arrived(_interleaved(said, seed), first_day)
    assert _what_the_law_is_about(one) == _what_the_law_is_about(other)


# So many, and of so many periods, that one in thirty sets comes to something else where the order of reports decides.
reports = st.lists(
    st.tuples(pharmacies, st.sampled_from([tablets(50), tablets(95), tablets(100)]), st.booleans()),
    min_size=3,
    max_size=8,
)


@settings(max_examples=200)
@given(reports, st.integers(min_value=0, max_value=5), st.integers(min_value=0), st.booleans())
def test_the_same_hand_outs_reported_in_any_order_use_up_the_same(
    handed: list[tuple[str, ev.Quantity, bool]],
    refills: int,
    seed: int,
    prescription_first: bool,  # noqa: FBT001 - drawn
) -> None:
    """Whether a period is used up may hang on what was handed out before: in the world, not in the log."""
    said = [
        w.dispensed(f"D{day}", by=by, at_ms=at(day), quantity=amount, period_completed=period)
        for day, (by, amount, period) in enumerate(handed)
    ]
    signed = w.issued("R1", refills=refills, signed_ms=at(0))
    merged = _interleaved(said, seed)
    one, other = (
        _arrived([signed, *said], 30),
        _arrived([signed, *merged] if prescription_first else [*merged, signed], 30),
    )
    assert _what_the_law_is_about(one) == _what_the_law_is_about(other)


# --- Anything at all --------------------------------------------------------------------------------------------------

claims = st.sampled_from(["C1", "C2", "C3"])
allergies = st.sampled_from(["A1", "A2"])
requests = st.sampled_from(["Q1", "Q2"])
actors = st.sampled_from(sorted(w.ACTORS))
clock_times = st.none() | instants


def _by(said: Said, by: str, at_ms: int | None) -> Said:
    """The same said by anybody, and at any time, whether that makes sense or not."""
    return replace(said, by=by, at_ms=at_ms if at_ms is not None else said.at_ms)


MAKERS: Final[tuple[st.SearchStrategy[Said], ...]] = (
    facts,
    st.builds(w.claimed, prescriptions, claims, pharmacies),
    st.builds(w.aborted, claims, pharmacies),
    st.builds(w.released, claims),
    st.builds(
        lambda rx, to, *, every: w.dispatched(rx, to, every=every), prescriptions, pharmacies, every=st.booleans()
    ),
    st.builds(w.dispatch_withdrawn, prescriptions),
    st.builds(lambda treatment, at_ms: w.changed(treatment, at_ms=at_ms), treatments, clock_times),
    st.builds(w.changed, treatments, substitution_reserved=st.booleans()),
    st.builds(w.paused, treatments, st.sampled_from([on(1), on(30)]), maybe_days),
    st.builds(w.resumed, treatments),
    st.builds(w.reinstated, treatments),
    st.builds(lambda treatment, at_ms: w.withdrawn(treatment, at_ms=at_ms), treatments, clock_times),
    st.builds(w.use_reported, treatments, st.sampled_from(["otherwise", "not_taking"])),
    st.builds(w.allergic, allergies),
    st.builds(w.allergic, allergies, none_known=st.just(value=True)),
    st.builds(w.refuted, allergies),
    st.builds(w.multidose, pharmacies, doctors),
    st.builds(w.multidose_ended, st.sampled_from(["A", "B", "P", "Q"])),
    st.builds(w.death_retracted),
    st.builds(w.renewal_requested, prescriptions, requests, doctors),
    st.builds(w.renewal_declined, requests, doctors),
    st.builds(w.reconciled, st.integers(min_value=-1, max_value=30), doctors),
    st.builds(
        lambda dispense, amount: w.reversed_(dispense, reversal=f"V{amount.value}", returned=amount), hand_outs, amounts
    ),
)
anything = st.one_of(*MAKERS) | st.builds(_by, st.one_of(*MAKERS), actors, clock_times)
histories = st.lists(anything, min_size=1, max_size=30)


def _lived(said: Sequence[Said], *, whole_too: bool = True, gaps: Callable[[int], int] = lambda _: 0) -> World:
    world = World(whole_too=whole_too)
    for index, each in enumerate(said):
        world.offset += gaps(index)
        world.when(replace(each, event_id=id_of(f"said {index}"), received_at_ms=at(0) + index * w.HOUR_MS))
    return world


@settings(max_examples=250)
@given(histories)
def test_whatever_is_said_is_judged_and_what_is_refused_changes_nothing(said: list[Said]) -> None:
    """No event makes the fold fail; loading more never changes a judgement (the world asserts it)."""
    world = _lived(said)
    for event, then in world.history:
        if then.outcome == "applied":
            continue
        changed = {name.partition(":")[0] for name in then.judgement.puts}
        conflicting = isinstance(event.body, ev.MedicationDispensed) and "conflicting" in then.outcome
        assert changed <= ({META, "out"} if conflicting else {META})
        assert then.judgement.effects == ()


@settings(max_examples=150)
@given(histories, st.integers(min_value=0))
def test_hearing_anything_again_changes_nothing(said: list[Said], seed: int) -> None:
    dice, world = Random(seed), _lived(said, whole_too=False)
    events = [event for event, _ in world.history]
    for event in dice.sample(events, k=min(5, len(events))):
        meta, fields, memory = world.meta, dict(world.fields), dict(world.memory)
        then = world.feed(event)
        assert (then.outcome, then.judgement.effects) == ("duplicate", ())
        assert (_as_if_at(world, meta.position), world.memory) == (fields, memory)


def _as_if_at(world: World, position: int) -> dict[str, bytes]:
    """The fields of a world, as if the patient had come no further than that."""
    return {**world.fields, META: pack_field(with_values(world.meta, position=position))}


@settings(max_examples=100)
@given(histories, st.integers(min_value=0))
def test_what_lies_between_in_the_log_is_nothing_to_a_patient(said: list[Said], seed: int) -> None:
    """Other patients' events take offsets: only the order of one's own matters."""
    dice = Random(seed)
    alone, among_others = _lived(said, whole_too=False), World(whole_too=False)
    for index, each in enumerate(said):
        if isinstance(each.body, ev.ListReconciled):
            continue  # it names a version, which is an offset
        among_others.offset += dice.randrange(5)
        among_others.when(replace(each, event_id=id_of(f"said {index}"), received_at_ms=at(0) + index * w.HOUR_MS))
    expected = [then for event, then in alone.history if not isinstance(event.body, ev.ListReconciled)]
    actual = [then for _, then in among_others.history]
    assert list(map(_told, actual)) == list(map(_told, expected))
    assert _what_the_law_is_about(among_others) == _what_the_law_is_about(alone)


def _told(then: Then) -> tuple[object, ...]:
    return then.outcome, then.flags, then.named, then.notices, then.orders


REOPENERS: Final = (ev.DispenseReversed, ev.DeathRetracted)


@settings(max_examples=150)
@given(histories)
def test_only_a_reversal_or_a_retraction_makes_what_was_closed_dispensable_again(said: list[Said]) -> None:
    world = World(whole_too=False)
    closed: set[str] = set()
    for index, each in enumerate(said):
        world.when(replace(each, event_id=id_of(f"said {index}"), received_at_ms=at(0) + index * w.HOUR_MS))
        now = {rx for rx in ("R1", "R2", "R3", "R4") if world.knows(rx) and world.status(rx) in "RT"}
        # A claim cannot be made on what is closed, so nothing leaves R and T but by these.
        assert isinstance(world.last.body, REOPENERS) or closed <= now
        closed = now


@settings(max_examples=150)
@given(histories)
def test_what_is_kept_hangs_together(said: list[Said]) -> None:
    world = _lived(said, whole_too=False)
    held = {}
    for rx in ("R1", "R2", "R3", "R4"):
        if not world.knows(rx):
            continue
        prescription = world.prescription(rx)
        treatment = next(t for t in ("T1", "T2") if id_of(t) == prescription.treatment)
        if world.status(rx) == "E":
            assert not is_stopped(world.treatment(treatment)), "nothing of a stopped treatment is dispensable"
            assert world.meta.death is None, "nothing of a deceased patient is dispensable"
        if prescription.claim is not None:
            held[f"claim:{prescription.claim.claim}"] = id_of(rx)
        assert world.waiting(rx) == 0, "what a prescription was waited for with was released"
        dispenses = [each.dispense for each in prescription.hand_outs]
        assert len(dispenses) == len(set(dispenses)), "a hand-out counts once"
    kept = {name: unpack_field(name, packed) for name, packed in world.fields.items() if name.startswith("claim:")}
    assert kept == held


@settings(max_examples=100)
@given(histories)
def test_what_is_remembered_of_an_event_is_small(said: list[Said]) -> None:
    world = _lived(said, whole_too=False)
    assert len(world.memory) <= 2 * len(said)
    assert max((len(packed) for packed in world.memory.values()), default=0) <= 128


# --- Ten years --------------------------------------------------------------------------------------------------------


def _year_after_year(renew: Callable[[int, int], list[Said]]) -> World:
    """Forty prescriptions of one treatment, each dispensed three times: ten years of a chronic illness."""
    world = World(whole_too=False)
    for number in range(40):
        day = 90 * number
        for said in renew(number, day):
            world.when(said)
        for dispense in range(3):
            then = day + 10 + 25 * dispense
            name = f"{number}/{dispense}"
            if world.when(w.claimed(f"R{number}", f"C{name}", at_ms=at(then))).outcome == "applied":
                world.when(w.dispensed(f"D{name}", f"R{number}", at_ms=at(then, 9)))
    return world


def _plain(number: int, day: int) -> list[Said]:
    return [w.issued(f"R{number}", refills=2, at_ms=at(day), valid_until=on(day + 365))]


def _renewed_ahead(number: int, day: int) -> list[Said]:
    """Each is signed weeks before the last one ends, and may be dispensed from then."""
    signed = at(max(0, day - 30), 9)
    renews = f"R{number - 1}" if number else None
    return [
        w.issued(
            f"R{number}",
            refills=2,
            at_ms=signed,
            earliest=on(day) if number else None,
            renews=renews,
            valid_until=on(day + 365),
        )
    ]


def _staged(number: int, day: int) -> list[Said]:
    """Two stages of one series each time."""
    stages = [(f"R{number}", 0), (f"R{number}b", 45)]
    return [
        w.issued(
            name,
            refills=2,
            at_ms=at(day, 8, index),
            series=f"S{number}",
            earliest=on(day + delay),
            valid_until=on(day + 365),
        )
        for index, (name, delay) in enumerate(stages)
    ]


CHAINS: Final = {"plain": _plain, "renewed ahead": _renewed_ahead, "staged": _staged}


def _dearest(world: World, kind: type[ev.Body], first: int, last: int) -> tuple[int, int, int]:
    """Most fields read, bytes read and bytes written for one event of a kind, of those within a stretch of the log."""
    costs = [
        (then.fields_read, then.bytes_read, then.bytes_put)
        for event, then in world.history[first:last]
        if isinstance(event.body, kind)
    ]
    fields, read, put = zip(*costs, strict=True)
    return max(fields), max(read), max(put)


def test_an_event_costs_the_same_after_ten_years_as_after_two() -> None:
    """Fields read do not grow at all; bytes by a little, since numbers and offsets get longer."""
    for name, renew in CHAINS.items():
        world = _year_after_year(renew)
        events = len(world.history)
        assert events >= 200, name
        for kind in (ev.PrescriptionIssued, ev.ClaimRequested, ev.MedicationDispensed):
            early, late = _dearest(world, kind, events // 10, events // 5), _dearest(world, kind, events // 2, events)
            assert late[0] <= early[0], (name, kind)
            assert late[1] <= early[1] * 1.1 + 32, (name, kind)
            assert late[2] <= early[2] * 1.1 + 32, (name, kind)


def test_what_may_still_be_closed_stays_as_short_as_the_dates_to_come() -> None:
    for name, renew in CHAINS.items():
        treatment = _year_after_year(renew).treatment()
        assert len(treatment.open) <= 4, name


def test_no_event_of_ten_years_reads_or_writes_much() -> None:
    for name, renew in CHAINS.items():
        world = _year_after_year(renew)
        assert max(then.fields_read for _, then in world.history) <= 12, name
        assert max(then.bytes_put for _, then in world.history) <= 4096, name


def test_what_does_grow_grows_by_a_few_bytes_for_each_of_its_kind() -> None:
    """A prescription keeps its hand-outs and a treatment its stops: any of them may be reversed, or overtaken, years later."""
    daily, stopped, allergic = World(whole_too=False), World(whole_too=False), World(whole_too=False)
    daily.when(w.issued(quantity=w.tablets(1000), at_ms=at(0)))
    stopped.when(w.issued(at_ms=at(0)))
    for number in range(200):
        daily.when(
            w.dispensed(f"D{number}", at_ms=at(number, 9), quantity=w.tablets(10), period_completed=False),
        )
        stopped.when(w.discontinued(at_ms=at(number + 1)))
        stopped.when(w.reinstated(at_ms=at(number + 1, 9)))
        allergic.when(w.allergic(f"A{number}"))
    for world, each in ((daily, 80), (stopped, 70), (allergic, 160)):
        (_, first), (_, last) = world.history[1], world.history[-1]
        assert last.bytes_read - first.bytes_read <= 200 * each
        assert last.bytes_put - first.bytes_put <= 200 * each
        assert last.fields_read <= first.fields_read + 1
