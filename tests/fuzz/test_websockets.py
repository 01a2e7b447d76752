import asyncio

import pytest
from support.running_server import RunningServer

from fuzz.websockets import differences

NO_ECHO_NEEDED = ("2.*", "3.*", "4.*", "7.3.*", "7.5.*", "7.7.*", "7.9.*")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/ws/training?after=0", "/ws/datasets"])
def test_a_websocket_ends_every_case_of_autobahn_as_aiohttp_alone_does(module_server: RunningServer, path: str) -> None:
    address = module_server.url.removeprefix("http://") + path
    count, differing = asyncio.run(differences(address, NO_ECHO_NEEDED))
    assert count > 50
    assert differing == {}
