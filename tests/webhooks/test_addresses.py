"""Where a delivery may go."""

import asyncio
import threading

import pytest

from modelforge.errors import BadInput
from modelforge.webhooks.addresses import AddressRefused, CheckedResolver, check_url
from modelforge.webhooks.sending import Sender


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/forge?a=b",
        "http://127.0.0.1:9000/hook",
        "http://[::1]:9000/",
        "http://192.168.1.20/",
        "http://nas.local:8123/api/webhook/x",
    ],
)
def test_this_machine_and_private_networks_may_be_told(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "//hooks.example/",
        "hooks.example",
        "http://",
        "http://me:secret@hooks.example/",
        "http://hooks.example/#part",
        "http://hooks.example/\n",
        "http://hooks.example/\u00e9",
        "http://hooks.example:99999/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://[fd00:ec2::254%25lo]/",
        "http://[fd00:ec2::254%lo]/",
        "http://[fe80::1%25eth0]/",
        "http://100.100.100.200/",
        "http://0.0.0.0:8000/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://2852039166/",
        "http://127.1/",
    ],
)
def test_what_no_delivery_is_sent_to_is_refused_by_its_field(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_url(url)
    assert refused.value.field == "url"
    assert "secret" not in str(refused.value)


async def test_a_name_that_leads_to_a_refused_address_is_refused_when_it_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = [(2, 1, 6, "", ("127.0.0.1", 80)), (2, 1, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(AddressRefused, match="credentials"):
        await CheckedResolver().resolve("rebound.example", 80)
    sender = Sender()
    sent = await sender.send("http://rebound.example/", b"{}", {})
    await sender.close()
    assert (sent.status_code, "169.254.169.254" in (sent.reason or "")) == (None, True)


async def test_a_literal_address_is_looked_at_though_no_name_is_resolved() -> None:
    sender = Sender()
    assert "credentials" in ((await sender.send("http://169.254.169.254/", b"{}", {})).reason or "")
    await sender.close()


async def test_a_look_up_that_hangs_is_given_up_and_takes_no_thread_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    hangs = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: hangs.wait(20))
    sender = Sender(seconds=0.05)
    answers = await asyncio.gather(*(sender.send(f"http://name{n}.example/", b"{}", {}) for n in range(40)))
    assert {answer.reason for answer in answers} == {"no answer within 0.05 s"}
    assert await asyncio.to_thread(lambda: 1) == 1
    hangs.set()
    await sender.close()
