"""What the handlers find in the application, by typed key; `app.py` puts it there."""

from aiohttp import web

from modelforge.command_handler import CommandHandler
from modelforge.event_log import EventLog
from modelforge.http.websocket import Subscribers
from modelforge.layout import Layout
from modelforge.playground import Playground
from modelforge.projections.projector import Projector
from modelforge.settings import Settings

SETTINGS = web.AppKey("settings", Settings)
LAYOUT = web.AppKey("layout", Layout)
EVENT_LOG = web.AppKey("event_log", EventLog)
HANDLER = web.AppKey("handler", CommandHandler)
PROJECTOR = web.AppKey("projector", Projector)
PLAYGROUND = web.AppKey("playground", Playground)
SUBSCRIBERS = web.AppKey("subscribers", Subscribers)
