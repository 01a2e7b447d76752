"""The whole API as one table, joined from those of the resources."""

import re

from aiohttp import web

from modelforge.http import (
    audit,
    dataset_previews,
    datasets,
    events,
    jobs,
    machine,
    metrics,
    model_work,
    models,
    page,
    playground,
    prometheus,
    reference,
    reruns,
    sessions,
    state,
    system,
    tokens,
    training,
    upload_progress,
    uploads,
)
from modelforge.http.openai import chat_completions, completions, fine_tuning, fine_tuning_history, responses
from modelforge.http.openai import files as openai_files
from modelforge.http.openai import models as openai_models
from modelforge.http.openai import webhooks as openai_webhooks
from modelforge.http.plumbing.request_check import checked
from modelforge.http.plumbing.route import Route

ROUTES: tuple[Route, ...] = (
    *state.ROUTES,
    *audit.ROUTES,
    *machine.ROUTES,
    *system.ROUTES,
    *page.ROUTES,
    *reference.ROUTES,
    *training.ROUTES,
    *jobs.ROUTES,
    *metrics.ROUTES,
    *prometheus.ROUTES,
    *reruns.ROUTES,
    *models.ROUTES,
    *model_work.ROUTES,
    *uploads.ROUTES,
    *upload_progress.ROUTES,
    *datasets.ROUTES,
    *dataset_previews.ROUTES,
    *playground.ROUTES,
    *events.ROUTES,
    *tokens.ROUTES,
    *sessions.ROUTES,
    *openai_files.ROUTES,
    *openai_models.ROUTES,
    *fine_tuning.ROUTES,
    *fine_tuning_history.ROUTES,
    *chat_completions.ROUTES,
    *completions.ROUTES,
    *responses.ROUTES,
    *openai_webhooks.ROUTES,
)


def add_routes(app: web.Application) -> None:
    """Put the table to work."""
    # A name in a path is whatever stands between two slashes: to aiohttp, without this, a brace is part of none.
    app.router.add_routes(
        [web.route(route.method, re.sub(r"{(\w+)}", r"{\1:[^/]+}", route.path), checked(route)) for route in ROUTES]
    )
