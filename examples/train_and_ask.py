"""Train a model on a file of records, follow it to its end, and ask it something.

python examples/train_and_ask.py examples/three_lines.jsonl "What is a volcano?"
"""

import argparse
import sys
from pathlib import Path

from modelforge.client import Client, RequestRefused
from modelforge.http.playground import Piece


def main() -> int:
    """Do all of it; the exit code is 1 where the server refuses, or the training does not complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a file of records")
    parser.add_argument("question", help="what the trained model is asked")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="what is trained")
    parser.add_argument("--steps", type=int, default=20, help="how long")
    options = parser.parse_args()
    try:
        with Client() as client:
            return run(client, options.file, options.question, options.model, options.steps)
    except RequestRefused as refused:
        print(refused, file=sys.stderr)
        return 1


def run(client: Client, file: Path, question: str, model: str, steps: int) -> int:
    """Send, train, follow, ask."""
    dataset = client.upload_dataset(file)
    print(f"{dataset.filename}: {dataset.num_examples} examples")
    job_id = client.start_training(
        task="text-generation", model_name=model, dataset=dataset.filename, max_steps=steps, logging_steps=1
    ).job_id
    for message in client.follow_job(job_id):
        print(f"{message.status}: {message.current_step or 0} of {message.total_steps or '?'} steps", flush=True)
    for metric in client.get_metrics(job_id).metrics:
        print(f"step {metric.step}: loss {metric.loss}")
    job = client.get_job(job_id)
    if job.model_id is None:
        print(f"{job_id} is {job.status}: {job.error}", file=sys.stderr)
        return 1
    for said in client.stream_answer(model_id=job.model_id, prompt=question, max_new_tokens=60, temperature=0):
        if isinstance(said, Piece):
            print(said.text, end="", flush=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
