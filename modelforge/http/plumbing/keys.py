"""What the handlers find in the application, by typed key; `app.py` puts it there."""

import msgspec
from aiohttp import web

from modelforge.admission.context import Admission
from modelforge.command_handler import CommandHandler
from modelforge.datasets.preview_workers import PreviewWorkers
from modelforge.datasets.record_pages import RecordPages
from modelforge.datasets.store import DatasetStore
from modelforge.event_log.sqlite import EventLog
from modelforge.http.plumbing.exposition import Exposition
from modelforge.http.plumbing.identities import Identities
from modelforge.http.plumbing.subscribers import Subscribers
from modelforge.inference import InferenceWorker
from modelforge.layout import Layout
from modelforge.projections.projector import Projector
from modelforge.settings import Settings
from modelforge.webhooks.deliverer import Deliverer

SETTINGS = web.AppKey("settings", Settings)
LAYOUT = web.AppKey("layout", Layout)
EVENT_LOG = web.AppKey("event_log", EventLog)
HANDLER = web.AppKey("handler", CommandHandler)
PROJECTOR = web.AppKey("projector", Projector)
ADMISSION = web.AppKey("admission", Admission)
DATASET_STORE = web.AppKey("dataset_store", DatasetStore)
DELIVERER = web.AppKey("deliverer", Deliverer)
PREVIEW_WORKERS = web.AppKey("preview_workers", PreviewWorkers)
RECORD_PAGES = web.AppKey("record_pages", RecordPages)
PLAYGROUND = web.AppKey("playground", InferenceWorker)
EXPOSITION = web.AppKey("exposition", Exposition)
IDENTITIES = web.AppKey("identities", Identities)
SUBSCRIBERS = web.AppKey("subscribers", Subscribers)
OPENAPI = web.AppKey("openapi", msgspec.Raw)
