"""What is checked before anybody asks for it: who asks for it then does not wait."""

import asyncio
import contextlib
from collections.abc import Iterable

from modelforge.admission.estimate.fit import FIELD, model_folder
from modelforge.admission.estimate.tokenizer import check_tokenizer
from modelforge.errors import ForgeError


async def check_ahead(models: Iterable[str]) -> None:
    """Read the tokenizers of models, by their paths, where they are on this machine."""
    for name in models:
        folder = await asyncio.to_thread(model_folder, name)
        if folder is not None:
            with contextlib.suppress(ForgeError):  # whoever asks for it is told
                await check_tokenizer(name, folder, FIELD)
