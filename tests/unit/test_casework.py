"""An operator's commands on a log and a view in memory: what they show, what they refuse, and that each look is recorded."""

import json
import stat
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from schemas.framing import PLAIN
from services.casework import event, parked, patient
from services.casework.access_record import AccessRecord
from services.casework.desk import Desk
from services.casework.numbers import MASK, holds_a_number, mask
from services.clock import ManualClock
from services.identity.national_id import NationalId, synthetic
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_views import MemoryViews
from services.medication_list.store.roles import RoleState
from tests.organisations import organisation_number
from tests.unit.fold_world import MINUTE_MS, PATIENT, at, claimed, discontinued, dispensed, id_of, issued, recalled
from tests.unit.refold_world import GENERATION, Stored, Story

NUMBER: NationalId = synthetic(4711)
WHY = ("--reason", "the pharmacy called")
WHO = ("--pseudonym", PATIENT)


class Stand:
    """A story, and a desk at which it is looked at."""

    def __init__(self, folder: Path) -> None:
        self.story = Story()
        self.record = folder / "access.jsonl"
        self.source = MemorySourceLog()
        self.clock = ManualClock(0)
        world = self.story.world
        self.desk = Desk(
            store=world.store,
            views=lambda: MemoryViews(world.server),
            generation=GENERATION,
            roles=MemoryRoles(world.server),
            source=self.source,
            records=world.log,
            outbox=MemoryOutbox(world.server),
            partitions=1,
            clock=self.clock,
            accesses=AccessRecord(self.record, self.clock),
            pseudonymiser=lambda: Pseudonymiser(b"k" * 32),
            append=lambda event: world.append(event, event.received_at_ms),
            framing=PLAIN,
        )

    def run(self, module: Any, *words: str) -> Result:
        """Call a command as a user does, at the time of the last record."""
        world = self.story.world
        self.source.log_ends = {0: len(world.records)}
        self.clock.set(world.now_ms + MINUTE_MS)
        app: typer.Typer = module.make_app(lambda: nullcontext(self.desk))
        return CliRunner().invoke(app, list(words))

    def told(self, module: Any, *words: str) -> Any:
        """What it says in JSON; it must have been done."""
        said = self.run(module, *words, "--json")
        assert said.exit_code == 0, said.output
        return json.loads(
            said.stdout.splitlines()[-1]
        )  # what is logged stands before it, where nobody has set logging up

    def looks(self) -> list[dict[str, Any]]:
        """The lines of the access record."""
        if not self.record.exists():
            return []
        return [json.loads(line) for line in self.record.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


# --- medchain patient --------------------------------------------------------------------------------------------


def test_a_timeline_says_when_who_what_became_of_it_and_what_it_changed(stand: Stand) -> None:
    for said in (
        issued("R1"),
        claimed("R1", "C1", by="P"),
        dispensed("D1", "R1", by="P"),
        discontinued("T1", at_ms=at(0, 9)),
    ):
        stand.story.say(said)
    found = stand.told(patient, "timeline", *WHO, *WHY)
    assert [each["event"]["type"] for each in found["events"]] == [
        "PrescriptionIssued",
        "ClaimRequested",
        "MedicationDispensed",
        "TreatmentDiscontinued",
    ]
    changed = [{each["entry"].split()[0]: each for each in step["changed"]} for step in found["events"]]
    assert changed[0]["treatment"]["before"] is None
    assert changed[1]["prescription"]["before"]["status"] == "E"
    assert changed[1]["prescription"]["after"]["status"] == "U"
    assert changed[2]["prescription"]["after"]["handed out"] == 100
    assert changed[3]["treatment"]["after"]["status"] == "discontinued"
    page = stand.run(patient, "timeline", *WHO, *WHY).stdout
    assert "PrescriptionIssued by 910000001 (doctor): applied" in page
    assert "status: E -> U" in page


def test_time_alone_changes_nothing_in_a_timeline(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    stand.story.now_ms += 400 * 24 * 60 * MINUTE_MS
    stand.story.say(claimed("R1", "C1", by="P"))
    (_, claim) = stand.told(patient, "timeline", *WHO, *WHY)["events"]
    assert claim["event"]["reason"] == "expired"
    assert claim["changed"] == []


def test_the_list_as_of_a_time_is_the_list_that_was_known_then(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    then = "2026-03-02T08:01:30"
    stand.story.say(issued("R2", "T2"))
    assert len(stand.told(patient, "list", *WHO, *WHY)["treatments"]) == 2
    assert len(stand.told(patient, "list", *WHO, *WHY, "--as-of", then)["treatments"]) == 1
    refused = stand.run(patient, "list", *WHY, *WHO, "--as-of", "yesterday")
    assert refused.exit_code == 2
    assert "--as-of" in refused.output


@pytest.mark.parametrize(
    "as_of",
    [
        "2099-01-01T09:00",
        "1969-12-31T23:59Z",
        "0001-01-01",
        "9999-12-31T23:59-05:00",
        "9999-12-31T23:59:59.999999+14:00",
    ],
)
def test_a_list_as_of_a_time_that_is_not_past_is_refused(stand: Stand, as_of: str) -> None:
    """Nothing is known of what will have been known, as the API says too; and no time ends a command with a stack trace."""
    stand.story.say(issued("R1"))
    said = stand.run(patient, "list", *WHY, *WHO, "--as-of", as_of, "--json")
    assert (said.exit_code, json.loads(said.stdout)["error"]) == (
        2,
        "--as-of: a time that is past, and no earlier than 1970.",
    )
    assert stand.looks() == []


def test_a_time_that_the_timeline_prints_shows_the_event_if_it_is_given_back(stand: Stand) -> None:
    stand.story.now_ms += 123
    stand.story.say(issued("R1"))
    stand.story.say(issued("R2", "T2"))
    (printed, _) = stand.run(patient, "timeline", *WHO, *WHY).stdout.split(" 0-0 ")
    assert printed.endswith(".123Z")
    assert len(stand.told(patient, "list", *WHO, *WHY, "--as-of", printed)["treatments"]) == 1


def test_a_prescription_whose_number_was_anothers_is_in_no_list_that_an_operator_sees_and_the_first_is_flagged(
    stand: Stand,
) -> None:
    second = "b" * 32
    stand.story.say(issued("R1"))
    stand.story.say(issued("R2", "T2"), patient=second)
    alone = "2026-03-02T08:02:30"
    stand.story.say(issued("R1", "T2"), patient=second)
    stand.story.say(claimed("R1", "C1", by="P"), patient=second)
    whose = ("--pseudonym", second, *WHY)
    for when in ((), ("--as-of", "2026-03-02T08:05")):
        (treatment,) = stand.told(patient, "list", *whose, *when)["treatments"]
        assert [(each["prescription"], each["status"]) for each in treatment["prescriptions"]] == [(id_of("R2"), "E")]
        (flagged,) = stand.told(patient, "list", *WHO, *WHY, *when)["treatments"]
        assert flagged["prescriptions"][0]["flags"] == ["prescription_number_conflict"]
    (then,) = stand.told(patient, "list", *WHO, *WHY, "--as-of", alone)["treatments"]
    assert "flags" not in then["prescriptions"][0], "nobody knew of a second one then"
    events = stand.told(patient, "timeline", *whose)["events"]
    assert [each["hidden"] for each in events] == [False, True, False]
    assert ("content" in events[1]["event"], events[1]["event"]["outcome"]) == (False, "applied")
    assert [each["changed"] for each in events[1:]] == [[], []]
    page = stand.run(patient, "timeline", *whose).stdout
    assert "PrescriptionIssued by 910000001 (doctor): applied\n  hidden: its number was another patient's" in page


def test_a_list_is_not_shown_while_it_could_be_less_than_is_known(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.casework.desk._CURRENT_WITHIN_S", 0.0)
    stand.story.say(issued("R1"))
    ahead = stand.story.world.records[0, 0]._replace(offset=1)
    stand.story.world.records[0, 1] = ahead
    said = stand.run(patient, "list", *WHO, *WHY, "--json")
    assert said.exit_code == 1
    assert "stands at offset 1, and the log ends at 2" in json.loads(said.stdout)["error"]


def test_a_refold_shows_the_answers_first_and_writes_only_with_yes(stand: Stand) -> None:
    for said, damaged in ((issued("R1"), False), (recalled("R1"), True), (claimed("R1", "C1", by="P"), False)):
        stand.story.say(said, damaged=damaged)
    stand.story.world.mend([1])
    before = stand.story.world.server.content()
    shown = stand.told(patient, "refold", *WHO, *WHY)
    assert stand.story.world.server.content() == before
    assert (shown["done"], shown["needed"], shown["unparked"]) == (False, True, ["0-1"])
    assert [(each["answered"], each["now"], each["corrected"]) for each in shown["answers"]] == [
        ("applied", "refused(recalled)", True)
    ]
    assert shown["effects"] == ["notice to notices.920000001"]
    assert {each["entry"] for each in shown["list_changes"]} >= {f"prescription {id_of('R1')}", "list"}
    assert "Say --yes" in stand.run(patient, "refold", *WHO, *WHY).stdout
    done = stand.told(patient, "refold", *WHO, *WHY, "--yes")
    assert done == {**shown, "done": True}
    assert stand.told(patient, "refold", *WHO, *WHY)["needed"] is False
    (_, _, claim) = stand.told(patient, "timeline", *WHO, *WHY)["events"]
    assert (claim["event"]["outcome"], claim["event"]["answered"]["outcome"]) == ("refused", "applied")


@pytest.mark.parametrize(
    ("module", "words"),
    [(patient, ["refold", *WHO]), (parked, ["refold"]), (parked, ["close", "0-1"])],
    ids=["patient", "parked", "close"],
)
def test_what_a_switch_under_way_does_not_allow_can_be_tried_again(stand: Stand, module: Any, words: list[str]) -> None:
    """Exit 2 would tell a script that the same again will never be done."""
    stand.story.say(issued("R1"), damaged=True)
    stand.story.world.add(stand.story.world.records[0, 0]._replace(offset=1, key=b""))
    stand.story.world.mend([0])
    role = stand.desk.roles.roles([0])[0]
    assert role is not None
    assert stand.desk.roles.turn(0, role, role._replace(state=RoleState.FROZEN))
    said = stand.run(module, *words, *WHY, "--yes", "--json")
    assert (said.exit_code, json.loads(said.stdout)["exit"]) == (1, 1), said.output
    assert "switch" in json.loads(said.stdout)["error"]


def test_a_log_that_lost_what_the_view_was_made_of_is_not_asked_again(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    del stand.story.world.records[0, 0]
    stand.source.log_ends = {0: 1}
    app = patient.make_app(lambda: nullcontext(stand.desk))
    said = CliRunner().invoke(app, ["timeline", *WHO, *WHY, "--json"])
    assert said.exit_code == 2
    assert "does not hold at offset 0" in json.loads(said.stdout.splitlines()[-1])["error"]


# --- Whose data, and who looks -----------------------------------------------------------------------------------


def test_every_look_is_recorded_before_it_is_made_and_names_no_number(stand: Stand, tmp_path: Path) -> None:
    file = tmp_path / "patient"
    file.write_text(NUMBER.digits + "\n", encoding="utf-8")
    stand.story.say(issued("R1"))
    words = ("--operator", "Kari Vakt", "--patient-file", str(file), *WHY)
    stand.run(patient, "timeline", *words)
    (look,) = stand.looks()
    assert {key: look[key] for key in ("action", "operator", "reason", "event")} == {
        "action": "patient timeline",
        "operator": "Kari Vakt",
        "reason": "the pharmacy called",
        "event": "looked",
    }
    assert look["patient"] == Pseudonymiser(b"k" * 32).patient_key(NUMBER)
    assert look["timestamp"].endswith("Z")
    assert look["account"]
    assert NUMBER.digits not in stand.record.read_text(encoding="utf-8")
    assert stat.S_IMODE(stand.record.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (patient, ["timeline", *WHO]),
        (patient, ["list", *WHO]),
        (patient, ["refold", *WHO, "--yes"]),
        (event, ["trace", "x", "--position", "0-1"]),
        (parked, ["show", "0-1"]),
        (parked, ["refold", "--yes"]),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_nothing_is_shown_or_done_that_cannot_be_recorded(stand: Stand, module: Any, words: list[str]) -> None:
    """The folder of the record is a file: nobody can write it."""
    stand.story.say(issued("R1"))
    stand.story.say(recalled("R1"), damaged=True)
    words = [id_of("event 1") if each == "x" else each for each in words]
    stand.story.world.mend([1])
    stand.record.write_text("", encoding="utf-8")
    object.__setattr__(stand.desk, "accesses", AccessRecord(stand.record / "below", stand.clock))
    before = stand.story.world.server.content()
    said = stand.run(module, *words, *WHY, "--json")
    assert said.exit_code == 2
    assert "access record cannot be written" in json.loads(said.stdout)["error"]
    assert stand.story.world.server.content() == before


@pytest.mark.parametrize(
    "reason",
    ["", "no", "   ", "...", "a - b", f"because of {NUMBER.digits}", f"{NUMBER.digits[:6]} {NUMBER.digits[6:]}"],
)
def test_a_reason_says_something_and_holds_no_number(stand: Stand, reason: str) -> None:
    said = stand.run(patient, "timeline", *WHO, "--reason", reason)
    assert said.exit_code == 2
    assert NUMBER.digits not in said.output
    assert stand.looks() == []


@pytest.mark.parametrize("operator", [[], ["--operator", "Kari Vakt"]], ids=["account", "operator"])
def test_an_account_without_a_name_is_recorded_by_its_number(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, operator: list[str]
) -> None:
    """As in a pod that runs under a number which its image gives no name."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2_000_000_001)
    assert stand.run(patient, "timeline", *WHO, *WHY, *operator).exit_code == 0
    (look,) = stand.looks()
    assert look["account"] == "uid-2000000001"
    assert look["operator"] == (operator[-1] if operator else look["account"])


@pytest.mark.parametrize("operator", ["", " ", "...", "x" * 81])
def test_an_operator_who_is_named_has_a_name(stand: Stand, operator: str) -> None:
    said = stand.run(patient, "timeline", *WHO, *WHY, "--operator", operator)
    assert (said.exit_code, "operator: a name" in said.output) == (2, True)
    assert stand.looks() == []


@pytest.mark.parametrize(
    "between",
    ["", " ", "\u00a0", "\u202f", "-", "\u2011", "/", ".", "\u200b", " - "],
    ids=lambda each: each.encode("unicode_escape"),
)
def test_a_reason_is_refused_for_the_very_numbers_that_are_masked_however_they_are_written_apart(between: str) -> None:
    digits = NUMBER.digits
    for parts in ((digits[:6], digits[6:]), tuple(digits)):
        text = f"of {between.join(parts)}, called at 08.30"
        assert holds_a_number(text)
        assert mask(text) == f"of {MASK}, called at 08.30"


def test_what_is_too_short_for_an_identity_number_is_neither_masked_nor_refused() -> None:
    for text in ("on 2026-03-02 at 9", "0123456789", "1/2 - 3/4", "3-1042"):
        assert mask(text) == text
        assert not holds_a_number(text)


def number_in_a_file(tmp_path: Path) -> list[str]:
    file = tmp_path / "patient"
    file.write_text(NUMBER.digits[:-1] + "x", encoding="utf-8")
    return ["--patient-file", str(file)]


@pytest.mark.parametrize(
    "words",
    [
        lambda _: ["--pseudonym", NUMBER.digits],
        lambda _: [],
        number_in_a_file,
        lambda tmp_path: ["--patient-file", str(tmp_path / "nothing")],
    ],
    ids=["a number as pseudonym", "no terminal", "a wrong number in a file", "no such file"],
)
def test_a_national_id_is_read_from_terminal_or_file_and_no_error_repeats_it(
    stand: Stand, tmp_path: Path, words: Callable[[Path], list[str]]
) -> None:
    said = stand.run(patient, "timeline", *words(tmp_path), *WHY)
    assert said.exit_code == 2
    assert NUMBER.digits not in said.output
    assert NUMBER.digits[:-1] not in said.output
    assert stand.looks() == []


def test_no_command_takes_a_national_id_as_an_argument(stand: Stand) -> None:
    said = stand.run(patient, "timeline", NUMBER.digits, *WHY)
    assert said.exit_code == 2
    assert stand.looks() == []


# --- medchain event ----------------------------------------------------------------------------------------------


def test_a_trace_says_where_an_event_is_and_what_waits_because_of_it(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    stand.story.say(claimed("R1", "C1", by="P"))
    stand.story.say(recalled("R1"))
    found = stand.told(event, "trace", id_of("event 2"), *WHO, *WHY)
    assert (found["position"], found["outcome"], found["judged"], found["view_offset"]) == ("0-2", "applied", True, 3)
    ((effect),) = found["effects"]
    assert (effect["what"], effect["topic"], effect["state"]) == (
        "notice: recalled_while_held",
        "notices.920000001",
        "waiting",
    )
    same = stand.told(event, "trace", id_of("event 2"), "--position", "0-2", *WHY)
    assert same == found
    assert [(look.get("patient"), look.get("position")) for look in stand.looks()] == [(PATIENT, None), (None, "0-2")]


def test_that_a_patient_has_no_such_event_is_told_to_nobody_whose_look_is_not_recorded(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    assert "no event of that id" in stand.run(event, "trace", id_of("event 9"), *WHO, *WHY).output
    (look,) = stand.looks()
    assert (look["patient"], look["event_id"]) == (PATIENT, id_of("event 9"))
    object.__setattr__(stand.desk, "accesses", AccessRecord(stand.record / "below", stand.clock))
    said = stand.run(event, "trace", id_of("event 9"), *WHO, *WHY)
    assert "access record cannot be written" in said.output
    assert "no event" not in said.output


@pytest.mark.parametrize("position", ["0-1234567890", "0-123456789012345678"])
def test_an_offset_of_many_digits_is_no_identity_number(stand: Stand, position: str) -> None:
    stand.story.say(issued("R1"))
    said = stand.run(event, "trace", id_of("event 0"), "--position", position, *WHY)
    assert said.exit_code == 1, "it may yet come"
    assert [look["position"] for look in stand.looks()] == [position]


def test_a_trace_finds_what_is_parked_too_and_refuses_what_is_not_there(stand: Stand) -> None:
    stand.story.say(issued("R1"), damaged=True)
    parked_one = stand.told(event, "trace", id_of("event 0"), *WHO, *WHY)
    assert (parked_one["outcome"], parked_one["reason"]) == ("parked", "unknown_schema")
    for words, code in (
        (["trace", id_of("event 9"), *WHO], 1),
        (["trace", id_of("event 9"), "--position", "0-0"], 2),
        (["trace", id_of("event 0"), "--position", "0-7"], 1),
        (["trace", id_of("event 0"), "--position", "7"], 2),
    ):
        assert stand.run(event, *words, *WHY).exit_code == code, words


# --- medchain parked ---------------------------------------------------------------------------------------------


def test_what_is_parked_is_listed_by_reason_sender_schema_and_age(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    stand.story.say(recalled("R1"), damaged=True)
    found = stand.told(parked, "list")
    (record,) = found["records"]
    assert (record["position"], record["reason"], record["marks_a_list"], record["age_ms"]) == (
        "0-1",
        "unknown_schema",
        True,
        MINUTE_MS,
    )
    assert (found["by_reason"], found["mendable"]) == ({"unknown_schema": 1}, 0)
    stand.story.world.mend([1])
    assert stand.told(parked, "list")["mendable"] == 1
    assert stand.told(parked, "list", "--older-than", "2")["total"] == 0
    assert stand.told(parked, "list", "--park-reason", "no_key")["total"] == 0
    assert [stand.told(parked, "list")["records"][0][name] for name in ("mendable", "closed")] == [True, False]
    assert PATIENT not in stand.run(parked, "list").stdout


def test_a_list_of_what_is_parked_never_says_that_nothing_is_because_of_a_filter(stand: Stand) -> None:
    assert "Nothing is parked." in stand.run(parked, "list").stdout
    stand.story.say(issued("R1"), damaged=True)
    for words in (["--park-reason", "no_key"], ["--sender", "nobody"], ["--schema", "none"], ["--older-than", "9"]):
        assert stand.run(parked, "list", *words).stdout == "Nothing that is parked fits.\n"
    mistyped = stand.run(parked, "list", "--park-reason", "unreadble")
    assert mistyped.exit_code == 2
    assert "unreadable" in mistyped.output
    assert "unknown_schema" in mistyped.output


def test_a_header_that_is_null_or_no_text_keeps_a_parked_record_from_nobody(stand: Stand) -> None:
    world = stand.story.world
    headers: Any = (("ce_id", None), ("ce_type", b"\xff"), ("ce_source", None))
    world.add(Stored(0, PATIENT.encode(), b"", stand.story.now_ms, headers))
    (found,) = stand.told(parked, "list")["records"]
    assert "sender" not in found
    assert stand.told(parked, "show", "0-0", *WHY)["headers"]["ce_id"] == ""
    (event,) = stand.told(patient, "timeline", *WHO, *WHY)["events"]
    assert (event["event"]["outcome"], "event_id" in event["event"]) == ("parked", False)


def test_a_parked_record_is_shown_as_far_as_it_can_be_read_without_identities(stand: Stand) -> None:
    stand.story.say(issued("R1"), damaged=True)
    found = stand.told(parked, "show", "0-0", *WHY)
    assert (found["patient"], found["schema_is_known"], found.get("content")) == (PATIENT, False, None)
    stand.story.world.mend([0])
    found = stand.told(parked, "show", "0-0", *WHY)
    assert found["content"]["body"]["treatment"] == id_of("T1")
    assert "identity" not in found["content"]["body"]
    assert stand.run(parked, "show", "0-9", *WHY).exit_code == 1, "it may yet come"


@pytest.mark.parametrize(
    ("name", "told", "is_shown"),
    [
        ("ce_id", "7397cdde-1380-4573-8000-054a53b763ad", True),
        ("ce_id", NUMBER.digits, False),
        ("ce_id", f"7397cdde-1380-4573-8000-054a53b763ad {NUMBER.digits}", False),
        ("traceparent", "00-12345678901234567890123456789012-1234567890123456-01", True),
        ("traceparent", f"00-{NUMBER.digits}-1234567890123456-01", False),
        ("ce_source", "7397cdde-1380-4573-8000-054a53b763ad", False),
        ("x-note", "7397cdde", False),
    ],
)
def test_a_header_that_is_an_id_in_form_is_shown_though_many_digits_follow_one_another(
    stand: Stand, name: str, told: str, *, is_shown: bool
) -> None:
    stand.story.world.add(Stored(0, PATIENT.encode(), b"", stand.story.now_ms, ((name, told.encode()),)))
    shown = stand.told(parked, "show", "0-0", *WHY)["headers"][name]
    assert (shown == told) is is_shown
    assert NUMBER.digits not in shown


def test_of_a_record_that_is_none_of_ours_two_bytes_are_shown_since_it_may_begin_with_a_number(stand: Stand) -> None:
    text = f"{NUMBER.digits};metoprolol".encode()
    stand.story.world.add(Stored(0, PATIENT.encode(), text, stand.story.now_ms))
    stand.story.say(issued("R1"), damaged=True)
    found = stand.told(parked, "show", "0-0", *WHY)
    assert (found["bytes"], found["begins_with"]) == (len(text), text[:2].hex())
    mark = stand.story.world.records[0, 1].value[:10]
    assert stand.told(parked, "show", "0-1", *WHY)["begins_with"] == mark.hex()


CLOSE = (*WHY, "--organisation", organisation_number(5), "--yes")


def damaged_for_ever(stand: Stand) -> None:
    """A record of the patient that is no Avro of ours."""
    stand.story.say(issued("R1"))
    record = stand.story.world.records[0, 0]
    stand.story.world.add(record._replace(offset=1, value=b"no Avro of ours"))


def test_a_closed_record_makes_no_list_incomplete_and_stays_closed_in_a_view_made_anew(stand: Stand) -> None:
    damaged_for_ever(stand)
    assert stand.told(patient, "list", *WHO, *WHY)["complete"] is False
    shown = stand.told(parked, "close", "0-1", *CLOSE[:-1])
    assert (shown["by_event"], shown["done"]) == (True, False)
    assert len(stand.story.world.records) == 2, "nothing was written"
    done = stand.told(parked, "close", "0-1", *CLOSE)
    assert (done["outcome"], done["closed_at"]) == ("applied", "0-2")
    assert stand.told(patient, "list", *WHO, *WHY)["complete"] is True
    assert stand.told(parked, "list")["total"] == 0
    assert [each["closed"] for each in stand.told(parked, "list", "--all")["records"]] == [True]
    assert stand.story.world.afresh().server.content() == stand.story.world.server.content()
    assert stand.told(patient, "refold", *WHO, *WHY)["needed"] is False
    assert stand.looks()[-3]["changes"] is True
    refused = stand.run(parked, "close", "0-1", *CLOSE)
    assert refused.exit_code == 2
    assert "closed already" in refused.output


def test_a_record_that_can_be_mended_is_not_closed_by_mistake(stand: Stand) -> None:
    stand.story.say(issued("R1"), damaged=True)
    assert "can be mended" in stand.run(parked, "close", "0-0", *CLOSE).output
    assert stand.told(parked, "close", "0-0", *CLOSE, "--although-mendable")["outcome"] == "applied"
    stand.story.world.mend([0])
    assert stand.told(patient, "refold", *WHO, *WHY, "--yes")["unparked"] == ["0-0"]
    assert stand.story.outcome() == "refused(unknown)", "it takes effect after all, and there is nothing left to close"
    stand.story.say(issued("R2", "T2"), damaged=True)
    stand.story.world.mend([2])
    refused = stand.run(parked, "close", "0-2", *CLOSE)
    assert (refused.exit_code, "refold it instead" in refused.output) == (2, True)


def test_a_record_of_nobody_is_closed_by_a_note_and_marks_no_list(stand: Stand) -> None:
    stand.story.say(issued("R1"))
    stand.story.world.add(stand.story.world.records[0, 0]._replace(offset=1, key=b""))
    done = stand.told(parked, "close", "0-1", *WHY, "--yes")
    assert (done["by_event"], done["done"], done["park_reason"]) == (False, True, "no_key")
    assert stand.told(parked, "list")["total"] == 0
    assert stand.run(parked, "refold", "0-1", *WHY, "--yes").exit_code == 2
    stand.story.say(claimed("R1", "C1", by="P"))
    assert stand.story.outcome() == "applied", "the epoch was raised, and the processor read again"


@pytest.mark.parametrize("organisation", [None, "123456789"])
@pytest.mark.parametrize("yes", [[], ["--yes"]], ids=["looked at", "done"])
def test_whoever_closes_a_record_of_a_patient_says_for_whom(
    stand: Stand, organisation: str | None, yes: list[str]
) -> None:
    damaged_for_ever(stand)
    words = ["--organisation", organisation] if organisation else []
    said = stand.run(parked, "close", "0-1", *WHY, *words, *yes)
    assert said.exit_code == 2
    assert "organisation" in said.output
    assert len(stand.story.world.records) == 2


def test_what_is_parked_is_refolded_once_it_is_mended(stand: Stand) -> None:
    stand.story.say(issued("R1"), damaged=True)
    assert stand.told(parked, "refold", *WHY, "--yes")[0]["still_parked"] == ["0-0"]
    stand.story.world.mend([0])
    (shown,) = stand.told(parked, "refold", "0-0", *WHY)
    assert (shown["done"], shown["unparked"]) == (False, ["0-0"])
    (done,) = stand.told(parked, "refold", *WHY, "--yes")
    assert done["done"] is True
    assert stand.told(parked, "list")["total"] == 0
    assert stand.told(patient, "list", *WHO, *WHY)["complete"] is True


def test_who_cannot_be_folded_anew_keeps_nobody_else_from_it_and_what_was_done_is_told(stand: Stand) -> None:
    """The second of three: a record of theirs that was judged is one that this release cannot read."""
    second, third = "b" * 32, "c" * 32
    stand.story.say(issued("R1"), damaged=True)
    judged = stand.story.say(issued("R2", "T2"), patient=second)
    stand.story.say(issued("R3", "T3"), patient=second, damaged=True)
    stand.story.say(issued("R4", "T4"), patient=third, damaged=True)
    stand.story.world.mend([0, 2, 3])
    record = stand.story.world.records[0, judged]
    stand.story.world.records[0, judged] = record._replace(value=b"\xc3\x01newer!!!" + record.value[10:])
    shown = stand.run(parked, "refold", *WHY)
    assert "2 of 3 patients would be folded anew" in shown.stderr
    said = stand.run(parked, "refold", *WHY, "--yes", "--json")
    found = json.loads(said.stdout.splitlines()[-1])
    assert (said.exit_code, found["exit"]) == (2, 2)
    assert [(each["patient"], each["done"]) for each in found["refolded"]] == [(PATIENT, True), (third, True)]
    assert f"2 of 3 patients were folded anew, as told. {second}: The record at offset 1" in found["error"]
    assert [each["position"] for each in stand.told(parked, "list")["records"]] == ["0-2"]
    assert "The record at offset 1" in stand.run(parked, "refold", *WHY).stderr
