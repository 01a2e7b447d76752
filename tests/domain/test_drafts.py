"""A draft of the state, one on another, and what the state becomes of them."""

import msgspec
from support.scenario import launching, requested, uploaded

from modelforge.domain.messages import Event
from modelforge.domain.state import State


def drafted(before: State, *events: Event) -> State:
    draft = before.draft()
    for event in events:
        draft.apply(event)
    return draft


def folded(*events: Event) -> State:
    state = State()
    for event in events:
        state.apply(event)
    return state


def test_a_draft_on_a_draft_sees_both_and_changes_neither() -> None:
    state = folded(uploaded())
    first = drafted(state, requested())
    second = drafted(first, launching())
    assert (dict(state.jobs), state.running) == ({}, ())
    assert (first.jobs["train_000001"].status, first.running) == ("queued", ())
    assert (second.jobs["train_000001"].status, second.running) == ("starting", ("train_000001",))
    assert dict(second.datasets) == dict(state.datasets)


def test_a_draft_on_a_draft_is_a_mapping_of_all_that_is_in_either() -> None:
    a, b, c = (msgspec.structs.replace(uploaded(), filename=f"{name}.jsonl") for name in "abc")
    again = msgspec.structs.replace(a, num_examples=7, revision=2)
    second = drafted(drafted(folded(a), b), c, again)
    whole = folded(a, b, c, again)
    assert dict(second.datasets) == whole.datasets
    assert list(second.datasets) == list(whole.datasets)
    assert len(second.datasets) == len(whole.datasets)
    assert [f"{name}.jsonl" in second.datasets for name in "abcd"] == [True, True, True, False]


def test_what_is_adopted_is_as_if_it_was_applied_and_what_was_drafted_on_it_goes_on_from_there() -> None:
    state = folded(uploaded())
    first = drafted(state, requested())
    ahead = drafted(first, launching())
    state.adopt(first, ahead)
    assert state == folded(uploaded(), requested())
    state.adopt(ahead, ahead.draft())
    assert state == folded(uploaded(), requested(), launching())


def test_drafts_do_not_pile_up_however_long_there_is_always_one_ahead() -> None:
    state = State()
    ahead = drafted(state, uploaded())
    for _ in range(2000):
        written, ahead = ahead, drafted(ahead, uploaded())
        state.adopt(written, ahead)
    assert "nowhere.jsonl" not in ahead.datasets
    assert ahead.datasets.get("nowhere.jsonl") is None
