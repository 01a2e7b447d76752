"""How good answers are: ROUGE for summaries, exact match and F1 for answers that stand in a text. All in percent."""
# mypy: allow-untyped-calls

import re

_WORD = re.compile(r"\w+")


def rouge(written: list[str], references: list[str]) -> dict[str, float | None]:
    """ROUGE-1, -2 and -L, F-measures (Lin 2004): what a summary shares with its reference; words of any script."""
    from torchmetrics.functional.text import rouge_score

    found = rouge_score(
        written,
        references,
        normalizer=str.lower,
        tokenizer=_WORD.findall,
        rouge_keys=("rouge1", "rouge2", "rougeL"),
    )
    return {f"eval_{name}": 100 * float(found[f"{name}_fmeasure"]) for name in ("rouge1", "rouge2", "rougeL")}


def exact_match_and_f1(answers: list[str], references: list[list[str]]) -> dict[str, float | None]:
    """Exact match and F1 as SQuAD 2.0 reckons them (arXiv 1806.03822): "" is the answer where there is none."""
    from torchmetrics.functional.text import squad

    answerable = [place for place, texts in enumerate(references) if texts]
    unanswerable = [place for place, texts in enumerate(references) if not texts]
    right = sum(not answers[place] for place in unanswerable)
    exact = f1 = 100.0 * right
    if answerable:
        found = squad(
            [{"prediction_text": answers[place], "id": str(place)} for place in answerable],
            [
                {"answers": {"text": references[place], "answer_start": [0] * len(references[place])}, "id": str(place)}
                for place in answerable
            ],
        )
        exact += float(found["exact_match"]) * len(answerable)
        f1 += float(found["f1"]) * len(answerable)
    figures: dict[str, float | None] = {
        "eval_exact_match": exact / len(references),
        "eval_f1": f1 / len(references),
    }
    if unanswerable:
        figures["eval_no_answer_accuracy"] = 100 * right / len(unanswerable)
    return figures
