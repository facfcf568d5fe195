"""The rules of the ledger, one by one, on the reference; tests/property/test_ledger.py holds Redis to it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.ledger import notices
from service.ledger.errors import LedgerError
from service.ledger.outbox import Facts, Notice, UsageChanged
from service.ledger.reference import ReferenceLedger
from service.ledger.transaction import (
    ALMOST_REACHED,
    EXCEEDED,
    QUANTITY_MAX,
    REACHED,
    Account,
    Attempt,
    Balance,
    Denial,
    Emission,
    Expectation,
    IndexChange,
    IndexKey,
    Limit,
    Outcome,
    OutcomeKind,
    Place,
    Record,
    RecordKey,
    Take,
    Timer,
    Transaction,
    Wait,
    Wake,
)

NOW_MS = 1_700_000_000_000
PATH = ("customer", "partner", "distributor")
KEY = RecordKey("workload", "customer", "w1")
WAKE_OF_PARTNER = RecordKey("job", "", "wake/partner/seats")


def take(used: int, reserved: int = 0, *, fact: bool = False) -> Take:
    return Take(PATH, "seats", used, reserved, fact)


def taking(used: int) -> Transaction:
    return Transaction([Attempt(take=[take(used)])])


def limiting(tenant: str, value: int | None, overage: int | None = 0) -> Transaction:
    return Transaction([Attempt(limits=[Limit(tenant, "seats", value, overage)])])


def asking(used: int, who: str = "w1", static: str = "") -> Transaction:
    """What a handler does: take, or else wait and say so, once."""
    wait = Wait("customer", who, static, (), (0,))
    emission = Emission("denied", (0,), unless_same=True)
    return Transaction([Attempt(take=[take(used)], unwait=[("customer", who)]), Attempt(wait=wait, emit=[emission])])


async def commit(ledger: ReferenceLedger, *transactions: Transaction, now_ms: int = NOW_MS) -> list[Outcome]:
    return await ledger.commit(0, transactions, now_ms)


async def kinds(ledger: ReferenceLedger, *transactions: Transaction) -> list[OutcomeKind]:
    return [outcome.kind for outcome in await commit(ledger, *transactions)]


def used(ledger: ReferenceLedger) -> list[int]:
    accounts = ledger.snapshot(0).accounts
    return [accounts.get((tenant, "seats"), Account()).used for tenant in PATH]


def facts(ledger: ReferenceLedger) -> list[str]:
    return [entry.facts for entry in ledger.snapshot(0).outbox if isinstance(entry, Facts)]


def notices_of(ledger: ReferenceLedger, tenant: str) -> list[str]:
    outbox = ledger.snapshot(0).outbox
    return [entry.kind for entry in outbox if isinstance(entry, Notice) and entry.tenant == tenant]


@pytest.fixture
def ledger() -> ReferenceLedger:
    return ReferenceLedger(shards=2)


# --- what limits allow


async def test_what_is_taken_counts_on_every_level_of_the_path(ledger: ReferenceLedger) -> None:
    assert await kinds(ledger, taking(3)) == [OutcomeKind.APPLIED]
    assert used(ledger) == [3, 3, 3]


async def test_a_hard_limit_allows_value_plus_overage_and_not_one_more(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 2, 1))
    assert await kinds(ledger, taking(3), taking(1)) == [OutcomeKind.APPLIED, OutcomeKind.DENIED]
    assert used(ledger) == [3, 3, 3]


async def test_a_soft_limit_refuses_nothing(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 2, None))
    assert await kinds(ledger, taking(9)) == [OutcomeKind.APPLIED]


async def test_a_refusal_names_every_tenant_in_the_way_and_changes_nothing(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 2), limiting("distributor", 3), taking(1))
    before = ledger.snapshot(0)
    [outcome] = await commit(ledger, taking(3))
    assert outcome == Outcome(
        OutcomeKind.DENIED,
        -1,
        ((Denial("customer", "seats", 2, 1, 3), Denial("distributor", "seats", 3, 1, 3)),),
    )
    assert ledger.snapshot(0) == before


async def test_a_release_is_never_refused_even_above_the_limit(ledger: ReferenceLedger) -> None:
    await commit(ledger, taking(5), limiting("partner", 1))
    assert await kinds(ledger, taking(-1)) == [OutcomeKind.APPLIED]
    assert used(ledger) == [4, 4, 4]


async def test_an_exchange_without_a_net_increase_is_not_refused_above_the_limit(ledger: ReferenceLedger) -> None:
    await commit(ledger, taking(5), limiting("partner", 1))
    other = Take(("other", "partner", "distributor"), "seats", 2)
    assert await kinds(ledger, Transaction([Attempt(take=[take(-2), other])])) == [OutcomeKind.APPLIED]
    assert used(ledger) == [3, 5, 5]


async def test_takes_of_one_attempt_are_weighed_together(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 3))
    other = Take(("other", "partner", "distributor"), "seats", 2)
    [outcome] = await commit(ledger, Transaction([Attempt(take=[take(2), other])]))
    assert outcome.denials == ((Denial("partner", "seats", 3, 0, 4),),)


async def test_a_fact_is_recorded_whatever_the_limit_says(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 1))
    assert await kinds(ledger, Transaction([Attempt(take=[take(9, fact=True)])])) == [OutcomeKind.APPLIED]
    assert used(ledger) == [9, 9, 9]


async def test_a_new_limit_holds_for_what_the_same_attempt_takes(ledger: ReferenceLedger) -> None:
    limit = Limit("customer", "seats", 2, 0)
    [outcome] = await commit(ledger, Transaction([Attempt(limits=[limit], take=[take(3)])]))
    assert outcome.denials == ((Denial("customer", "seats", 2, 0, 3),),)
    assert ledger.snapshot(0).accounts == {}


async def test_a_reservation_counts_as_used_and_its_commit_does_not_count_again(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 3), Transaction([Attempt(take=[take(3, 3)])]))
    assert await kinds(ledger, Transaction([Attempt(take=[take(0, -2)])])) == [OutcomeKind.APPLIED]
    assert ledger.snapshot(0).accounts["customer", "seats"].reserved == 1


async def test_the_first_attempt_that_nothing_refuses_is_applied_and_the_denials_of_the_others_kept(
    ledger: ReferenceLedger,
) -> None:
    await commit(ledger, limiting("customer", 1))
    attempts = [Attempt(take=[take(3)]), Attempt(take=[take(2)]), Attempt(take=[take(1)]), Attempt()]
    [outcome] = await commit(ledger, Transaction(attempts))
    assert (outcome.kind, outcome.attempt) == (OutcomeKind.DENIED, 2)
    assert [denials[0].requested for denials in outcome.denials] == [3, 2]
    assert used(ledger) == [1, 1, 1]


async def test_idle_places_must_have_nothing_used_after_the_attempt(ledger: ReferenceLedger) -> None:
    await commit(ledger, taking(2))
    idle = [Place("customer", "seats")]
    outcomes = await commit(
        ledger,
        Transaction([Attempt(take=[take(-1)], idle=idle)]),
        Transaction([Attempt(take=[take(-2)], idle=idle)]),
    )
    assert outcomes[0].denials == ((Denial("customer", "seats", 0, 1, 0),),)
    assert outcomes[1].kind is OutcomeKind.APPLIED


async def test_a_probe_is_weighed_and_not_taken(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 2))
    probes = [Transaction([Attempt(take=[take(n)], probe=True, emit=[Emission(f"{n}")])]) for n in (2, 3)]
    assert await kinds(ledger, *probes) == [OutcomeKind.APPLIED, OutcomeKind.DENIED]
    assert used(ledger) == [0, 0, 0]
    assert facts(ledger) == ["2"]


async def test_a_sum_too_large_is_an_overflow_and_stalls_its_source(ledger: ReferenceLedger) -> None:
    await commit(ledger, taking(QUANTITY_MAX))
    outcomes = await kinds(
        ledger,
        Transaction([Attempt(take=[take(1)])], source="events", position=1),
        Transaction([Attempt()], source="events", position=2),
    )
    assert outcomes == [OutcomeKind.OVERFLOW, OutcomeKind.STALLED]
    assert await ledger.positions() == {}


async def test_a_limit_too_large_to_count_with_is_an_overflow(ledger: ReferenceLedger) -> None:
    assert await kinds(ledger, limiting("customer", QUANTITY_MAX, 1)) == [OutcomeKind.OVERFLOW]


@pytest.mark.parametrize("wrong", [take(-1), take(1, 2), take(0, -1)], ids=["below zero", "more reserved", "reserved"])
async def test_numbers_that_cannot_be_refuse_the_whole_batch(ledger: ReferenceLedger, wrong: Take) -> None:
    with pytest.raises(LedgerError, match=r"transaction 2: used .* item seats of tenant customer") as caught:
        await commit(ledger, Transaction([Attempt(put=[(KEY, b"")])]), Transaction([Attempt(take=[wrong])]))
    assert caught.value.transaction == 2
    assert ledger.snapshot(0).records == {}


async def test_an_account_with_nothing_to_say_is_none(ledger: ReferenceLedger) -> None:
    await commit(ledger, taking(1), limiting("partner", 5), taking(-1), limiting("partner", None))
    assert ledger.snapshot(0).accounts == {}


# --- once, in order, on what was read


async def test_a_position_that_is_not_new_is_a_duplicate(ledger: ReferenceLedger) -> None:
    def at(position: int) -> Transaction:
        return Transaction([Attempt(take=[take(1)])], source="events", position=position)

    assert await kinds(ledger, at(5), at(5), at(4), at(6)) == [
        OutcomeKind.APPLIED,
        OutcomeKind.DUPLICATE,
        OutcomeKind.DUPLICATE,
        OutcomeKind.APPLIED,
    ]
    assert used(ledger) == [2, 2, 2]
    assert await ledger.positions() == {"events": 6}


async def test_a_refusal_moves_the_position_too(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 0))
    transaction = Transaction([Attempt(take=[take(1)])], source="events", position=7)
    assert await kinds(ledger, transaction, transaction) == [OutcomeKind.DENIED, OutcomeKind.DUPLICATE]


async def test_an_idempotency_key_answers_with_the_first_outcome_for_a_day(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 0))
    transaction = Transaction([Attempt(take=[take(1)]), Attempt()], idempotency_key="key")
    [first] = await commit(ledger, transaction)
    await commit(ledger, limiting("customer", 5))
    [again] = await commit(ledger, transaction, now_ms=NOW_MS + 86_399_999)
    [later] = await commit(ledger, transaction, now_ms=NOW_MS + 86_400_000)
    assert (again.kind, again.attempt, again.denials) == (OutcomeKind.DUPLICATE, first.attempt, first.denials)
    assert later.kind is OutcomeKind.APPLIED


async def test_a_record_that_changed_since_it_was_read_is_a_conflict_and_stalls_the_source(
    ledger: ReferenceLedger,
) -> None:
    def building_on(version: int, position: int) -> Transaction:
        expect = [Expectation(KEY, version)]
        return Transaction([Attempt(put=[(KEY, b"x")])], expect=expect, source="events", position=position)

    [first] = await commit(ledger, building_on(0, 1))
    assert await kinds(ledger, building_on(0, 2), building_on(first.version, 3)) == [
        OutcomeKind.CONFLICT,
        OutcomeKind.STALLED,
    ]
    assert await kinds(ledger, building_on(first.version, 2)) == [OutcomeKind.APPLIED]


async def test_a_group_of_expectations_holds_for_each_transaction_until_one_of_its_records_changes(
    ledger: ReferenceLedger,
) -> None:
    other = RecordKey("tenant", "customer", "tenant")
    group = (Expectation(KEY, 0), Expectation(other, 0))
    read = Transaction([Attempt()], standing=[group])
    write = Transaction([Attempt(put=[(other, b"x")])], standing=[group])
    outcomes = await ledger.commit(0, [read, write, read], NOW_MS)
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds == [OutcomeKind.APPLIED, OutcomeKind.APPLIED, OutcomeKind.CONFLICT]


async def test_a_provisional_transaction_that_is_refused_changes_nothing_and_stalls_its_source(
    ledger: ReferenceLedger,
) -> None:
    await ledger.commit(0, [limiting("partner", 1)], NOW_MS)
    before = ledger.snapshot(0)
    first = Transaction([Attempt(take=[take(2)])], source="s", position=1, provisional=True, idempotency_key="k")
    second = Transaction([Attempt()], source="s", position=2)
    refused, stalled = await ledger.commit(0, [first, second], NOW_MS)
    assert (refused.kind, refused.attempt, stalled.kind) == (OutcomeKind.REFUSED, -1, OutcomeKind.STALLED)
    assert refused.denials == ((Denial("partner", "seats", 1, 0, 2),),) and not refused.decided
    assert ledger.snapshot(0) == before


async def test_a_version_read_before_does_not_match_what_the_same_batch_wrote(ledger: ReferenceLedger) -> None:
    writing = Transaction([Attempt(put=[(KEY, b"x")])], expect=[Expectation(KEY, 0)])
    assert await kinds(ledger, writing, writing) == [OutcomeKind.APPLIED, OutcomeKind.CONFLICT]


async def test_a_transaction_may_build_on_one_before_it_in_the_batch(ledger: ReferenceLedger) -> None:
    put = Transaction([Attempt(put=[(KEY, b"x")])])
    delete = Transaction([Attempt(delete=[KEY])], expect=[Expectation(KEY, -1)])
    on_deleted = Transaction([Attempt(put=[(KEY, b"y")])], expect=[Expectation(KEY, -2)])
    on_overwritten = Transaction([Attempt()], expect=[Expectation(KEY, -1)])
    assert await kinds(ledger, put, delete, on_deleted, on_overwritten) == [
        *[OutcomeKind.APPLIED] * 3,
        OutcomeKind.CONFLICT,
    ]


async def test_what_builds_on_a_first_attempt_that_was_refused_is_a_conflict(ledger: ReferenceLedger) -> None:
    put = [(KEY, b"x")]
    await commit(ledger, limiting("customer", 0))
    refused = Transaction([Attempt(take=[take(1)], put=put), Attempt(put=put)])
    assert await kinds(ledger, refused, Transaction([Attempt()], expect=[Expectation(KEY, -1)])) == [
        OutcomeKind.DENIED,
        OutcomeKind.CONFLICT,
    ]


async def test_a_balance_that_is_not_as_expected_is_a_conflict(ledger: ReferenceLedger) -> None:
    def expecting(used: int, reserved: int) -> Transaction:
        return Transaction([Attempt()], balances=[Balance(Place("partner", "seats"), used, reserved)])

    await commit(ledger, Transaction([Attempt(take=[take(3, 1)])]))
    assert await kinds(ledger, expecting(3, 1), expecting(3, 0), expecting(2, 1)) == [
        OutcomeKind.APPLIED,
        OutcomeKind.CONFLICT,
        OutcomeKind.CONFLICT,
    ]


async def test_check_only_says_what_would_happen_and_writes_nothing(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 1))
    before = ledger.snapshot(0)
    attempt = Attempt(take=[take(2)], put=[(KEY, b"x")], emit=[Emission("{}")])
    outcomes = await commit(
        ledger,
        Transaction([attempt], source="events", position=1, idempotency_key="key", check_only=True),
        Transaction([Attempt(take=[take(1)], put=[(KEY, b"x")])], source="events", position=1, check_only=True),
    )
    assert outcomes == [
        Outcome(OutcomeKind.DENIED, -1, ((Denial("customer", "seats", 1, 0, 2),),)),
        Outcome(OutcomeKind.APPLIED, 0),
    ]
    assert ledger.snapshot(0) == before


# --- what is announced


async def test_records_carry_the_version_of_their_transaction_and_versions_rise(ledger: ReferenceLedger) -> None:
    other = RecordKey("plan", "", "p1")
    first, second = await commit(
        ledger,
        Transaction([Attempt(put=[(KEY, b"1"), (other, b"2")])]),
        Transaction([Attempt(put=[(KEY, b"3")])]),
    )
    assert await ledger.read({0: [KEY, other, RecordKey("plan", "", "none")]}) == {
        KEY: Record(second.version, b"3"),
        other: Record(first.version, b"2"),
        RecordKey("plan", "", "none"): None,
    }
    assert second.version > first.version


async def test_revisions_rise_in_the_order_of_the_outbox(ledger: ReferenceLedger) -> None:
    emit = [Emission("a"), Emission("b")]
    await commit(ledger, limiting("customer", 1), Transaction([Attempt(take=[take(1)], emit=emit)]), taking(-1))
    outbox = ledger.snapshot(0).outbox
    revisions = [entry.revision for entry in outbox]
    assert revisions == sorted(set(revisions))
    assert [type(entry) for entry in outbox] == [Facts, Facts, Notice, Notice, Notice]
    assert revisions[-1] == await ledger.sequence(0)


async def test_an_emission_carries_the_denials_it_asks_for(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 0))
    refused = [Attempt(take=[take(1)]), Attempt(take=[take(2)])]
    await commit(ledger, Transaction([*refused, Attempt(emit=[Emission("both", (0, 1)), Emission("none")])]))
    both, none = (entry for entry in ledger.snapshot(0).outbox if isinstance(entry, Facts))
    assert [denial.requested for denial in both.denials] == [1, 2]
    assert none.denials == ()


async def test_the_changes_of_a_batch_are_one_usage_announcement_per_account(ledger: ReferenceLedger) -> None:
    tags = (("customer", "trial"), ("partner", "production"))
    await commit(
        ledger,
        Transaction([Attempt(take=[take(3)])], cause="first", tags=tags),
        Transaction([Attempt(take=[take(2, 2)])], cause="last"),
    )
    entries = [entry for entry in ledger.snapshot(0).outbox if isinstance(entry, UsageChanged)]
    assert [(entry.tenant, entry.used, entry.reserved, entry.tag, entry.cause) for entry in entries] == [
        ("customer", 5, 2, "trial", "last"),
        ("partner", 5, 2, "production", "last"),
        ("distributor", 5, 2, "", "last"),
    ]


async def test_usage_that_came_back_to_what_it_was_is_not_announced(ledger: ReferenceLedger) -> None:
    await commit(ledger, taking(3), taking(-3))
    assert ledger.snapshot(0).outbox == ()


async def test_items_that_are_only_counted_are_held_to_limits_and_never_announced(ledger: ReferenceLedger) -> None:
    def counting(used: int) -> Transaction:
        wait = Wait("customer", "w1", "", (), (0,))
        return Transaction([Attempt(take=[Take(PATH, ".jobs", used)]), Attempt(wait=wait)])

    limit = Transaction([Attempt(limits=[Limit("partner", ".jobs", 2, 0)])])
    assert await kinds(ledger, limit, counting(2), counting(1), counting(-1)) == [
        OutcomeKind.APPLIED,
        OutcomeKind.APPLIED,
        OutcomeKind.DENIED,
        OutcomeKind.APPLIED,
    ]
    kept = ledger.snapshot(0)
    assert kept.accounts["partner", ".jobs"] == Account(used=1, value=2, overage=0)
    assert (kept.outbox, kept.records) == ((), {})


# --- notices


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        (Account(used=79, value=100, overage=5), 0),
        (Account(used=80, value=100, overage=5), ALMOST_REACHED),
        (Account(used=100, value=100, overage=5), ALMOST_REACHED | REACHED),
        (Account(used=105, value=100, overage=5), ALMOST_REACHED | REACHED),
        (Account(used=106, value=100, overage=5), ALMOST_REACHED | REACHED | EXCEEDED),
        (Account(used=101, value=100), ALMOST_REACHED | REACHED | EXCEEDED),
        (Account(used=0, value=0, overage=0), 0),
        (Account(used=1, value=0, overage=0), EXCEEDED),
        (Account(used=2, value=0, overage=2), 0),
        (Account(used=1, value=0), EXCEEDED),
        (Account(used=QUANTITY_MAX), 0),
    ],
)
def test_thresholds_are_where_the_domain_says(account: Account, expected: int) -> None:
    assert notices.conditions(account, 80) == expected


async def test_a_jump_over_several_thresholds_raises_each_on_every_level(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 10, None), limiting("partner", 12, 0), taking(12))
    assert notices_of(ledger, "customer") == ["almost_reached", "reached", "exceeded"]
    assert notices_of(ledger, "partner") == ["almost_reached", "reached"]


async def test_a_notice_is_raised_once_and_armed_again_below_its_threshold(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 10), taking(10), taking(-1), taking(1), taking(-1))
    assert notices_of(ledger, "customer") == ["almost_reached", "reached", "reached"]


async def test_one_cleared_when_usage_falls_below_almost_reached(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 10), taking(9), taking(-2), taking(-1))
    assert notices_of(ledger, "customer") == ["almost_reached", "cleared"]


async def test_a_quota_that_is_lifted_clears_what_was_raised(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 10), taking(10), limiting("customer", None))
    assert notices_of(ledger, "customer") == ["almost_reached", "reached", "cleared"]


async def test_a_quota_that_is_cut_to_nothing_ends_with_exceeded(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 10), taking(9), limiting("customer", 0))
    assert notices_of(ledger, "customer") == ["almost_reached", "cleared", "exceeded"]


async def test_notices_of_an_account_are_numbered(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("customer", 1), taking(1), taking(-1), taking(1))
    outbox = ledger.snapshot(0).outbox
    numbers = [entry.number for entry in outbox if isinstance(entry, Notice)]
    assert numbers == [1, 2, 3, 4, 5]


async def test_almost_reached_is_where_the_settings_say() -> None:
    ledger = ReferenceLedger(almost_reached_percent=50)
    await commit(ledger, limiting("customer", 10), taking(5))
    [notice] = [entry for entry in ledger.snapshot(0).outbox if isinstance(entry, Notice)]
    assert (notice.kind, notice.percent) == ("almost_reached", 50)


# --- who waits, and who is woken


async def test_whoever_is_refused_waits_where_the_limits_were_in_the_way(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 0), limiting("distributor", 0), asking(1))
    waiting = await ledger.waiting(0, "customer")
    assert waiting["w1"].places == (Place("partner", "seats"), Place("distributor", "seats"))
    [waiter] = await ledger.waiters(0, "partner", "seats", "", 10)
    assert (waiter.tenant, waiter.who, waiter.since_ms) == ("customer", "w1", NOW_MS)


async def test_the_same_refusal_again_stays_silent_and_keeps_its_place(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 0), asking(1))
    before = await ledger.waiting(0, "customer")
    await commit(ledger, asking(1), now_ms=NOW_MS + 5)
    assert facts(ledger) == ["denied"]
    assert await ledger.waiting(0, "customer") == before


@pytest.mark.parametrize(
    ("static", "silent"), [("why", True), ("why\nin other words", True), ("other", False), ("", False)]
)
async def test_the_first_line_of_the_reasons_tells_refusals_apart(
    ledger: ReferenceLedger, static: str, *, silent: bool
) -> None:
    await commit(ledger, limiting("partner", 0), asking(1, static="why"))
    await commit(ledger, asking(1, static=static), now_ms=NOW_MS + 5)
    assert facts(ledger) == ["denied"] * (1 if silent else 2)
    waiting = (await ledger.waiting(0, "customer"))["w1"]
    assert (waiting.static, waiting.since_ms) == (static, NOW_MS)


async def test_a_refusal_elsewhere_is_announced_and_moves_to_the_other_queue(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 0), asking(1))
    await commit(ledger, limiting("partner", 5), limiting("customer", 0), asking(1), now_ms=NOW_MS + 5)
    assert facts(ledger) == ["denied", "denied"]
    assert await ledger.waiters(0, "partner", "seats", "", 10) == []
    [waiter] = await ledger.waiters(0, "customer", "seats", "", 10)
    assert waiter.since_ms == NOW_MS


async def test_whoever_is_granted_waits_no_longer(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 0), asking(1), limiting("partner", 1), asking(1))
    assert await ledger.waiting(0, "customer") == {}
    assert await ledger.waiters(0, "partner", "seats", "", 10) == []


async def test_reasons_that_are_not_indexed_are_kept_and_wake_nobody(ledger: ReferenceLedger) -> None:
    wait = Wait("customer", "w1", "gone", (Place("customer", "*"),), indexed=False)
    await commit(ledger, Transaction([Attempt(wait=wait)]))
    assert (await ledger.waiting(0, "customer", ["w1", "w2"]))["w1"].places == ()
    assert ledger.snapshot(0).queues == {}


async def test_a_queue_is_in_the_order_of_the_first_refusal(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 0))
    for step, who in enumerate(("w3", "w1", "w2")):
        await commit(ledger, asking(1, who), now_ms=NOW_MS + step)
    first, *_ = await ledger.waiters(0, "partner", "seats", "", 1)
    rest = await ledger.waiters(0, "partner", "seats", first.member, 10)
    assert [waiter.who for waiter in (first, *rest)] == ["w3", "w1", "w2"]


async def test_an_entry_in_a_queue_that_the_batch_does_not_name_leads_nowhere_until_it_is_forgotten(
    ledger: ReferenceLedger,
) -> None:
    await commit(ledger, limiting("partner", 0), asking(1))
    await commit(ledger, Transaction([Attempt(unwait=[("customer", "w1")])]))
    [(place, member)] = ledger.snapshot(0).dead_entries()
    assert place == Place("partner", "seats")
    await commit(ledger, Transaction([Attempt(forget=[(place, member)])]))
    assert ledger.snapshot(0).queues == {}


@pytest.mark.parametrize(
    ("batch", "woken"),
    [
        ([taking(-1)], True),
        ([limiting("partner", 3)], True),
        ([limiting("partner", None)], True),
        ([limiting("partner", 2, None)], True),
        ([limiting("partner", 1)], False),
        ([taking(-1), taking(1)], False),
        ([limiting("customer", 9)], False),
    ],
    ids=["freed", "raised", "lifted", "made soft", "lowered", "freed and taken", "limit elsewhere"],
)
async def test_a_place_is_woken_where_room_appeared_and_is_still_there(
    ledger: ReferenceLedger, batch: Sequence[Transaction], *, woken: bool
) -> None:
    await commit(ledger, limiting("partner", 2), taking(2), asking(1))
    await commit(ledger, *batch, now_ms=NOW_MS + 5)
    assert (WAKE_OF_PARTNER in ledger.snapshot(0).records) is woken
    assert await ledger.timers(0, "job/") == ([("job/wake/partner/seats", NOW_MS + 5)] if woken else [])


async def test_nobody_is_woken_where_nobody_waits(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 2), taking(2), taking(-1))
    assert ledger.snapshot(0).records == {}


async def test_room_that_appears_behind_somebody_in_the_same_batch_wakes_him(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 2), taking(2), asking(1), taking(-2))
    assert WAKE_OF_PARTNER in ledger.snapshot(0).records


async def test_a_wake_again_is_a_new_version_of_the_same_job(ledger: ReferenceLedger) -> None:
    await commit(ledger, limiting("partner", 2), taking(2), asking(2))
    await commit(ledger, taking(-1))
    first = ledger.snapshot(0).records[WAKE_OF_PARTNER]
    await commit(ledger, Transaction([Attempt(take=[take(-1)])], cause="event"))
    second = ledger.snapshot(0).records[WAKE_OF_PARTNER]
    assert second.version > first.version
    assert second.payload == b"wake\0partner\0seats\0quota\0event"


async def test_a_wake_that_is_asked_for_has_its_reason_and_needs_somebody_who_waits(ledger: ReferenceLedger) -> None:
    wait = Wait("customer", "w1", "disabled", (Place("customer", "*"),))
    wakes = [Wake(Place(tenant, "*"), "tenant") for tenant in ("customer", "partner")]
    await commit(ledger, Transaction([Attempt(wait=wait)]), Transaction([Attempt(wake=wakes)], cause="event"))
    records = ledger.snapshot(0).records
    assert {key.id: record.payload for key, record in records.items()} == {
        "wake/customer/*": b"wake\0customer\0*\0tenant\0event"
    }


# --- names: indexes, timers, the directory, leases


async def test_indexes_and_timers_hold_what_was_said_last(ledger: ReferenceLedger) -> None:
    index = IndexKey("children", "customer", "")
    change = [IndexChange(index, name, present=present) for name, present in (("b", True), ("a", True), ("b", False))]
    timers = [Timer("late", 20), Timer("soon", 10), Timer("never", 5), Timer("never", None)]
    await commit(ledger, Transaction([Attempt(index=change, timers=timers)]))
    assert await ledger.members(0, index) == ["a"]
    assert await ledger.index_sizes({0: [index, IndexKey("children", "none", "")]}) == {
        index: 1,
        IndexKey("children", "none", ""): 0,
    }
    assert await ledger.due([0, 1], 15, 10) == {0: [("soon", 10)]}


async def test_a_walk_meets_every_record_once_though_others_go(ledger: ReferenceLedger) -> None:
    keys = [RecordKey("workload", "customer", f"w{number}") for number in range(20)]
    await commit(ledger, Transaction([Attempt(put=[(key, b"") for key in keys])]))
    cursor, seen = await ledger.scan(0, "workload", "customer", 0, 7)
    await commit(ledger, Transaction([Attempt(delete=[RecordKey("workload", "customer", name) for name in seen])]))
    found = list(seen)
    while cursor:
        cursor, some = await ledger.scan(0, "workload", "customer", cursor, 7)
        found += some
    assert sorted(found) == sorted(key.id for key in keys)


async def test_a_place_in_the_directory_stays_unless_its_holder_is_named(ledger: ReferenceLedger) -> None:
    assert await ledger.place({"a": 1, "b": 0}) == {"a": 1, "b": 0}
    assert await ledger.place({"a": 0}) == {"a": 1}
    assert await ledger.place({"a": 0}, instead_of=1) == {"a": 0}
    assert await ledger.locate(["a", "none"]) == {"a": 0}


async def test_a_lease_is_held_by_one_until_it_ends() -> None:
    clock = [0]
    ledger = ReferenceLedger(shards=2, clock=lambda: clock[0])
    assert await ledger.lease("relay", [0, 1], "a", 100) == {0, 1}
    assert await ledger.lease("relay", [0, 1], "b", 100) == set()
    await ledger.release("relay", [0], "b")
    await ledger.release("relay", [1], "a")
    assert await ledger.lease("relay", [0, 1], "b", 100) == {1}
    clock[0] = 100
    assert await ledger.lease("relay", [0], "b", 100) == {0}


async def test_only_the_holder_of_the_lease_trims_the_outbox_and_only_once(ledger: ReferenceLedger) -> None:
    await commit(ledger, Transaction([Attempt(emit=[Emission("a"), Emission("b")])]))
    await ledger.lease("relay", [0], "a", 60_000)
    oldest = (await ledger.outbox([0], 1))[0]
    assert await ledger.trim({0: oldest}, "relay", "b") == set()
    assert await ledger.outbox_depths() == {0: 2}
    assert await ledger.trim({0: oldest}, "relay", "a") == {0}
    assert await ledger.trim({0: oldest}, "relay", "a") == set()
    assert [entry.facts for entry in (await ledger.outbox([0, 1], 9))[0] if isinstance(entry, Facts)] == ["b"]


# --- what cannot be right


@pytest.mark.parametrize(
    "wrong",
    [
        Transaction([]),
        Transaction([Attempt()], position=-1),
        Transaction([Attempt()], expect=[Expectation(KEY, -2)]),
        Transaction([Attempt()], expect=[Expectation(RecordKey("account", "customer", "x"), 0)]),
        Transaction([Attempt(put=[(RecordKey("a:b", "customer", "x"), b"")])]),
        Transaction([Attempt(emit=[Emission("a\0b")])]),
        Transaction([Attempt(emit=[Emission("a", (0,))])]),
        Transaction([Attempt(wait=Wait("customer", "w", "", (), (0,)))]),
        Transaction([Attempt(wait=Wait("customer", "w\0", "", ()))]),
        Transaction([Attempt(wait=Wait("customer", "w", "a\0", ()))]),
        Transaction([Attempt(timers=[Timer("late", -1)])]),
        Transaction([Attempt(limits=[Limit("customer", "seats", -1, 0)])]),
        Transaction([Attempt(limits=[Limit("customer", "seats", QUANTITY_MAX + 1, 0)])]),
        Transaction([Attempt(take=[Take((), "seats", 1)])]),
        Transaction([Attempt(take=[Take(("a", "b", "a"), "seats", 1)])]),
        Transaction([Attempt(take=[Take(("a\1",), "seats", 1)])]),
        Transaction([Attempt()], cause="a\2"),
    ],
)
async def test_a_batch_that_cannot_be_right_is_refused_whole(ledger: ReferenceLedger, wrong: Transaction) -> None:
    with pytest.raises(LedgerError) as caught:
        await commit(ledger, taking(1), wrong)
    assert caught.value.transaction == 2
    assert used(ledger) == [0, 0, 0]
