"""The names under which people keep what a format has, and names of what must not be lost."""

from msgspec import Struct

from modelforge.datasets.validation.field_names import REFUSED
from trainer_entry import wire

Names = dict[str, tuple[str, ...]]


class Reading(Struct, frozen=True, gc=False):
    """A format, and the usual names of the fields that it must have."""

    format: wire.DatasetFormat
    fields: Names


PROMPTS = ("question", "query", "problem", "request", "inputs")
ANSWERS = ("answer", "response", "reply", "completion", "target", "targets", "solution")
READINGS: tuple[Reading, ...] = (
    Reading(
        "preferences",
        {
            "prompt": ("question", "query", "instruction", "input", "conversations"),
            "chosen": ("preferred", "preferred_output", "response_chosen", "chosen_response"),
            "rejected": ("dispreferred", "non_preferred_output", "response_rejected", "rejected_response"),
        },
    ),
    Reading(
        "document_summary",
        {
            "document": ("article", "body", "content", "dialogue", "dialog", "report", "text", "transcript"),
            "summary": ("abstract", "highlights", "tldr"),
        },
    ),
    Reading("alpaca", {"instruction": (), "output": ANSWERS}),
    Reading("alpaca", {"instruction": ("prompt", "query", "question"), "output": ANSWERS, "history": ()}),
    Reading("prompt_completion", {"prompt": (), "completion": (*ANSWERS, "output")}),
    Reading("input_output", {"input": PROMPTS, "output": ANSWERS}),
    Reading("input_output", {"input": ("source",), "output": ("target", "targets")}),
    Reading("input_output", {"input": ("user", "human"), "output": ("assistant", "bot", "gpt", "ai")}),
    Reading("messages", {"messages": ("chat", "conversation", "conversations", "dialog", "dialogue", "turns")}),
    Reading("text", {"text": ("content", "body")}),
)
BESIDE: Names = {"system": ("system_prompt", "system_message"), "input": ("context",)}
"""The usual names of fields that may be missing."""

PROPOSED: tuple[Reading, ...] = (
    Reading(
        "preferences",
        {
            "prompt": (),
            "chosen": ("accepted", "winner", "better"),
            "rejected": ("loser", "worse"),
        },
    ),
    Reading(
        "question_answer",
        {
            "context": ("passage", "paragraph", "document", "article", "text", "story", "evidence"),
            "question": ("query", "problem"),
            "answer": ("answer_text", "span"),
        },
    ),
    Reading("document_summary", {"document": ("passage", "source"), "summary": ("headline", "target")}),
    Reading("alpaca", {"instruction": ("task", "command"), "output": ()}),
    Reading(
        "input_output",
        {"input": ("prompt", "instruction", "source", "user", "human", "text"), "output": ("assistant", "label_text")},
    ),
    Reading("messages", {"messages": ()}),
    Reading("text", {"text": ("document",)}),
)
"""More names, by which a reading is proposed, and never taken unasked; the likeliest formats first."""

BEFORE_PROMPT = frozenset(
    {
        *(
            "article",
            "background",
            "body",
            "context",
            "contexts",
            "definition",
            "document",
            "documents",
            "evidence",
            "facts",
        ),
        *("input", "instruction", "knowledge", "paragraph", "passage", "passages", "schema", "story", "table", "text"),
    }
)
AFTER_PROMPT = frozenset(
    {
        *("choices", "inputs", "options"),
        *(f"{name}{letter}" for name in ("", "choice_", "op", "opt_", "option_", "option") for letter in "abcde"),
        *(f"{name}{number}" for name in ("choice", "choice_", "option", "option_") for number in range(6)),
    }
)
BEFORE_ANSWER = frozenset(
    {
        *("chain_of_thought", "complex_cot", "cot", "explanation", "rationale", "reasoning", "reasoning_content"),
        *("reasoning_trace", "reasoning_traces", "solution", "think", "thinking", "thinking_trajectories", "thought"),
    }
)
"""What a prompt, and an answer, are put together of, where such a column stands beside them."""

NEVER_DROPPED = (
    REFUSED
    | BEFORE_PROMPT
    | AFTER_PROMPT
    | BEFORE_ANSWER
    | {
        *("problem", "prompt", "query", "question", "system_prompt"),
        *("chosen", "rejected", "messages", "conversations"),
    }
)
"""A mapping that leaves out one of these would lose what the answers are to."""

NO_TEXT = frozenset(name for reading in READINGS[:-1] for name in reading.fields) | {
    *(name for reading in READINGS[:-1] for names in reading.fields.values() for name in names),
    *("from", "label", "message_id", "message_tree_id", "parent_id", "role", "speaker"),
} - {"content", "body", "text"}
"""Beside one of these, a column is no text to learn as it stands."""

USUALLY_READ = NEVER_DROPPED | {
    *("answer", "answers", "article", "completion", "document", "highlights", "input", "margin"),
    *("class", "intent", "output", "persona", "response", "sentiment", "summary", "system_message"),
}
"""A field of these names is rarely there for nothing."""
