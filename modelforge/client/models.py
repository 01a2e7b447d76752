"""Trained models: listed, asked, judged, made into others, deleted."""

import contextlib
from collections.abc import AsyncGenerator

from modelforge.admission.evaluation import EvaluateBody
from modelforge.client.calls import Calls, given, takes, takes_of
from modelforge.connection import path_of
from modelforge.errors import BadInput
from modelforge.http.model_work import ExportBody, MergeBody, PushBody
from modelforge.http.models import Deleted, ModelList
from modelforge.http.playground import Answer, GenerateBody, Piece
from modelforge.projections.jobs import JobDetails
from modelforge.projections.models import ModelDetails
from modelforge.server_answers import decoded


class ModelCalls(Calls):
    """What is asked of models."""

    async def list_models(self, *, limit: int | None = None, after: int | None = None) -> ModelList:
        """The trained models, oldest first: all, or a page. `after`: the id of the last one of the page before."""
        return await self._get(ModelList, "models", limit=limit, after=after)

    async def get_model(self, model_id: int) -> ModelDetails:
        """One trained model, with everything that made it."""
        return await self._get(ModelDetails, "models", model_id)

    async def delete_model(self, model_id: int) -> Deleted:
        """Delete a trained model; its files are gone when this returns."""
        return await self._delete(Deleted, "models", model_id)

    @takes_of(MergeBody)
    async def merge_model(self, model_id: int, body: MergeBody) -> JobDetails:
        """Start a job that puts an adapter into its base's weights; what it makes is a model of its own."""
        return await self._post(JobDetails, "models", model_id, "merge", body=body)

    @takes_of(ExportBody)
    async def export_model(self, model_id: int, body: ExportBody) -> JobDetails:
        """Start a job that copies a model out, as a folder, an archive or a GGUF file."""
        return await self._post(JobDetails, "models", model_id, "export", body=body)

    @takes_of(PushBody)
    async def push_model(self, model_id: int, body: PushBody) -> JobDetails:
        """Start a job that uploads a model to the hub, with the token that the server has."""
        return await self._post(JobDetails, "models", model_id, "push", body=body)

    @takes_of(EvaluateBody)
    async def evaluate_model(self, model_id: int, body: EvaluateBody) -> JobDetails:
        """Start a job that judges a model, or its base, on a dataset."""
        return await self._post(JobDetails, "models", model_id, "evaluate", body=body)

    @takes(GenerateBody)
    async def generate(self, body: GenerateBody) -> Answer:
        """Ask a model, trained or not, with a `prompt` or with the `messages` of a chat; the answer comes whole.

        Raises:
            BadInput: `stream` was set.
            RequestRefused: the model cannot answer that.
        """
        if body.stream:
            raise BadInput("A whole answer does not come in pieces", "Call stream_answer.", field="stream")
        return await self._post(Answer, "playground", "generate", body=body)

    @takes(GenerateBody)
    async def stream_answer(self, body: GenerateBody) -> AsyncGenerator[Piece | Answer, None]:
        """The same, piece by piece as it is written; the whole `Answer` comes last. Leaving ends the writing."""
        asked = {**given(body), "stream": True}
        stream = self._connection.stream(path_of("playground", "generate"), asked)
        async with contextlib.aclosing(stream) as events:
            async for event, data in events:
                yield (
                    decoded(data, Piece, self._connection.url)
                    if event == "token"
                    else decoded(data, Answer, self._connection.url)
                )
