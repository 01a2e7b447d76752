"""Fine-tunes the built-in model on `three_lines.jsonl` through the API, and shows what it learned.

`make demo` runs this. It starts a server of its own on a free port, keeps everything in one folder
(`modelforge-demo` in the current directory, or the folder that is named), and needs no GPU and no hub.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import requests
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parent
MODEL = "smollm2-135m-instruct"
LISTENS = re.compile(r"listens on (http://\S+)")
console = Console()


def start_server(data_dir: Path) -> tuple["subprocess.Popen[str]", str]:
    """A server on a free port, and its address."""
    command = [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(data_dir)]
    with (data_dir / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    line = server.stdout.readline() if server.stdout else ""
    if (match := LISTENS.search(line)) is None:
        sys.exit(f"The server did not start: {(data_dir / 'server.log').read_text().strip()}")
    return server, match[1]


def train(url: str) -> None:
    """Upload, train and watch, with the client that anybody has."""
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 5e-4, "max_seq_length": 256}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    command = [sys.executable, "-m", "modelforge", "train", str(HERE / "three_lines.jsonl"), "--model", MODEL]
    if subprocess.run([*command, *flags, "--watch", "--url", url], check=False).returncode != 0:
        sys.exit(1)


def ask(url: str, prompt: str, **model: object) -> str:
    """One answer, always the likeliest words, so that the comparison is fair."""
    body = {"prompt": prompt, "temperature": 0, "max_new_tokens": 90, **model}
    answer = requests.post(url + "/api/playground/generate", json=body, timeout=900)
    if not answer.ok:
        sys.exit(f"The playground could not answer: {answer.json()['detail']}")
    return str(answer.json()["generated_text"]).strip()


def compare(url: str) -> None:
    """The same prompts, which the training never saw, to the base model and to the tuned one."""
    model = requests.get(url + "/api/models", timeout=60).json()["models"][-1]
    prompts = [json.loads(line)["input"] for line in (HERE / "held_out.jsonl").read_text().splitlines()]
    table = Table("prompt", f"{MODEL}", f"{model['name']}", show_lines=True)
    with console.status("asking both models"):
        before = [ask(url, prompt, model_id=model["id"], base_model=True) for prompt in prompts]
        after = [ask(url, prompt, model_id=model["id"]) for prompt in prompts]
    for row in zip(prompts, before, after, strict=True):
        table.add_row(*map(escape, row))
    console.print(table)
    details = requests.get(f"{url}/api/models/{model['id']}", timeout=60).json()
    job = details["job_id"]
    metrics = requests.get(f"{url}/api/jobs/{job}/metrics", timeout=60).json()["metrics"]
    console.print(f"Loss: {metrics[0]['loss']:.3f} at step 1, {metrics[-1]['loss']:.3f} at step {metrics[-1]['step']}.")
    console.print(f"The tuned model lies in {details['path']}", highlight=False, soft_wrap=True)


def _command() -> tuple[str, ...]:
    """What to type for `modelforge`: it is on the PATH only in a virtual environment that is active."""
    beside = Path(sys.executable).with_name("modelforge")
    if shutil.which("modelforge") == str(beside):
        return ("modelforge",)
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "modelforge")


def main() -> None:
    """Run the demo from an empty folder to the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("modelforge-demo"))
    data_dir = parser.parse_args().data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # Found, fetched or built here, where its progress can be seen, and not only in the trainer's log.
    subprocess.run(
        [sys.executable, "-m", "trainer_entry.providers.builtin_model"], stdout=subprocess.DEVNULL, check=True
    )
    server, url = start_server(data_dir)
    try:
        console.print(f"Server: {url}", highlight=False)
        train(url)
        compare(url)
    finally:
        server.terminate()
        server.wait()
    console.print(f"Done in {time.monotonic() - began:.0f} s.", highlight=False)
    again = shlex.join((*_command(), "serve", "--data-dir", str(data_dir)))
    console.print(f"Serve it again: {again}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
