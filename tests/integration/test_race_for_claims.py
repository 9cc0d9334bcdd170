"""Two pharmacies race for the same prescriptions, each a process of its own: one holder each, and the loser is told who.

MEDCHAIN_TEST_RACES=1000 races for as many; the suite has fewer, since each is four writes.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from typing import Any, Final
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from deploy.local.layout import CHECKOUT
from schemas import events as ev
from services.identity.national_id import synthetic
from tests.acceptance.translate import ACTORS, ORGANISATIONS
from tests.acceptance.values import instant
from tests.chain import Chain, caller_header
from tests.integration.racing_pharmacy import AT_ONCE, Claimed, Race
from tests.integration.services_stand import a_prescription

pytestmark = pytest.mark.integration

RACES: Final = int(os.environ.get("MEDCHAIN_TEST_RACES") or 120)
OF_ONE_PATIENT: Final = 4
FIRST_PATIENT: Final = 60_000
WITHIN_S: Final = 300


def test_two_pharmacies_racing_for_prescriptions_leave_one_holder_each_and_the_loser_is_told_who(
    chain: Chain, seed: int
) -> None:
    chain.set_clock(instant("d0 12:00"))
    prescriptions = asyncio.run(issued(chain, RACES // OF_ONE_PATIENT))
    racers = {name: ACTORS[f"pharmacy {name}"] for name in ("P", "Q")}
    answers = raced(chain, racers, prescriptions, random.Random(seed))
    for _, prescription in prescriptions:
        check_one_race(prescription, {name: told[prescription] for name, told in answers.items()})
    check_the_log(chain, answers)
    check_the_list(chain, prescriptions, answers)


def check_one_race(prescription: str, told: dict[str, Claimed]) -> None:
    """One was given the claim, and the other was told by whom it is held; the log had the winner's first."""
    (winner,) = [name for name, each in told.items() if each.outcome == "applied"]
    (loser,) = told.keys() - {winner}
    assert told[loser] == Claimed(
        prescription, "refused", told[loser].position, "held", holder=ORGANISATIONS[winner]
    ), prescription
    assert place_of(told[winner]) < place_of(told[loser]), prescription


def place_of(claimed: Claimed) -> tuple[int, int]:
    partition, offset = claimed.position.split("-")
    return int(partition), int(offset)


def check_the_log(chain: Chain, answers: dict[str, dict[str, Claimed]]) -> None:
    """Every claim in the log was answered, and every answer names a claim of that pharmacy in the log."""
    wanted = {prescription for told in answers.values() for prescription in told}
    found = {
        (source_of(event), event.body.prescription)
        for event in chain.events()
        # Others leave in this log what is no event at all.
        if isinstance(event, ev.Event)
        and isinstance(event.body, ev.ClaimRequested)
        and event.body.prescription in wanted
    }
    answered = [(ORGANISATIONS[name], each) for name, told in answers.items() for each in told]
    assert Counter(answered) == Counter(found)
    assert len({each.position for told in answers.values() for each in told.values()}) == len(answered)


def source_of(event: ev.Event[Any]) -> str:
    return event.source.organisation


def check_the_list(chain: Chain, prescriptions: list[tuple[str, str]], answers: dict[str, dict[str, Claimed]]) -> None:
    """What everyone sees is what the winners were told."""
    shown = {
        each["prescription"]: each["holder"]
        for national_id in sorted({patient for patient, _ in prescriptions})
        for each in chain.search(national_id, ACTORS["pharmacy P"])
    }
    won = {
        prescription: ORGANISATIONS[name]
        for name, told in answers.items()
        for prescription, each in told.items()
        if each.outcome == "applied"
    }
    assert shown == won
    # Neither was so much faster that there was no race.
    assert all(count > 0 for count in Counter(won.values()).values())


async def issued(chain: Chain, patients: int) -> list[tuple[str, str]]:
    """Prescriptions of so many patients, some each: national id and prescription."""
    at_once = asyncio.Semaphore(AT_ONCE)
    who = ACTORS["prescriber A"]
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    async with aiohttp.ClientSession(trust_env=False, timeout=timeout) as http:

        async def one(number: int) -> list[tuple[str, str]]:
            patient = synthetic(number).digits
            line = {key: value for key, value in a_prescription().items() if key != "patient"}
            lines = [{**line, "prescription": str(uuid4())} for _ in range(OF_ONE_PATIENT)]
            headers = {"Medchain-Caller": caller_header(who), "Idempotency-Key": str(uuid4())}
            sent = {"patient": {"national_id": patient}, "prescriptions": lines}
            async with (
                at_once,
                http.post(f"{chain.platform.url('prescriber')}/v1/prescriptions", json=sent, headers=headers) as answer,
            ):
                assert answer.status in (201, 202), await answer.text()
            return [(patient, each["prescription"]) for each in lines]

        made = await asyncio.gather(*(one(FIRST_PATIENT + number) for number in range(patients)))
    return [each for of_one in made for each in of_one]


def raced(
    chain: Chain, racers: dict[str, ev.Source], prescriptions: list[tuple[str, str]], dice: random.Random
) -> dict[str, dict[str, Claimed]]:
    """Let both claim everything, each in its own order but for the neighbours in it; how each claim was answered."""
    processes = {name: start(chain, who, shuffled(prescriptions, dice)) for name, who in racers.items()}
    try:
        for process in processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = {name: process.communicate(timeout=WITHIN_S)[0] for name, process in processes.items()}
        assert all(process.returncode == 0 for process in processes.values())
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    lines = {
        name: [msgspec.json.decode(line, type=Claimed) for line in text.splitlines()] for name, text in told.items()
    }
    return {name: {each.prescription: each for each in claims} for name, claims in lines.items()}


def shuffled(prescriptions: list[tuple[str, str]], dice: random.Random) -> tuple[tuple[str, str], ...]:
    """In stretches of what is claimed at once, so that both ask for the same at nearly the same time."""
    stretches = [prescriptions[first : first + AT_ONCE] for first in range(0, len(prescriptions), AT_ONCE)]
    for stretch in stretches:
        dice.shuffle(stretch)
    return tuple(each for stretch in stretches for each in stretch)


def start(chain: Chain, who: ev.Source, prescriptions: tuple[tuple[str, str], ...]) -> "subprocess.Popen[str]":
    """A pharmacy that waits for the start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.racing_pharmacy"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    race = Race(chain.platform.url("pharmacy"), caller_header(who), prescriptions)
    process.stdin.write(msgspec.json.encode(race).decode() + "\n")
    process.stdin.flush()
    return process
