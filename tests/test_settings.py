"""Defaults, file, environment and flags, each over the one before; and what is refused."""

from pathlib import Path

import pytest

from modelforge.errors import SettingsInvalid
from modelforge.settings import FILENAME, load_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / FILENAME).write_text(text)


def test_the_defaults_need_nothing(folder: Path) -> None:
    settings = load_settings({}, {}, folder)
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.is_local
    assert settings.data_dir.is_absolute()


def test_each_layer_stands_over_the_one_before(folder: Path) -> None:
    write(folder, 'port = 1001\nmax_body_bytes = 2001\nstop_grace_seconds = 31\nallowed_hosts = ["file"]')
    environ = {"MODELFORGE_MAX_BODY_BYTES": "2002", "MODELFORGE_STOP_GRACE_SECONDS": "32"}
    settings = load_settings({"stop_grace_seconds": 33.5}, environ, folder)
    assert settings.port == 1001
    assert settings.max_body_bytes == 2002
    assert settings.stop_grace_seconds == 33.5
    assert settings.allowed_hosts == ("file",)


def test_variables_are_read_as_what_they_set(folder: Path) -> None:
    settings = load_settings(
        {},
        {
            "MODELFORGE_PORT": "0",
            "MODELFORGE_REQUIRE_TOKEN": "true",
            "MODELFORGE_DATASET_ROOTS": f"{folder}/a:{folder}/b",
            "MODELFORGE_REWARD_ROOTS": f"{folder}/c",
            "MODELFORGE_ALLOWED_HOSTS": "forge.local,forge.lan",
        },
        folder,
    )
    assert settings.port == 0
    assert settings.require_token
    assert settings.dataset_roots == (folder / "a", folder / "b")
    assert (settings.reward_roots, load_settings({}, {}, folder).reward_roots) == ((folder / "c",), ())
    assert settings.allowed_hosts == ("forge.local", "forge.lan")


def test_variables_of_others_are_passed_over(folder: Path) -> None:
    assert load_settings({}, {"PORT": "1", "HOME": "/"}, folder).port == 8000


def test_paths_are_resolved(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    settings = load_settings({"data_dir": str(folder / "link" / ".." / "link"), "model_roots": ["~"]}, {}, folder)
    assert settings.data_dir == folder / "real"
    assert settings.model_roots == (Path.home().resolve(),)


@pytest.mark.parametrize("text", ["prot = 8000", "port = 70000", 'port = "many"', "port = ", "stop_grace_seconds = 0"])
def test_a_file_that_cannot_be_used_is_named(folder: Path, text: str) -> None:
    write(folder, text)
    with pytest.raises(SettingsInvalid, match=FILENAME):
        load_settings({}, {}, folder)


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / FILENAME).write_bytes(b"port = 8000 # \xff\xfe")
    with pytest.raises(SettingsInvalid, match=FILENAME):
        load_settings({}, {}, folder)


def test_a_bad_value_is_refused_though_a_later_layer_sets_another(folder: Path) -> None:
    write(folder, "port = -1")
    with pytest.raises(SettingsInvalid, match="port"):
        load_settings({"port": 8000}, {}, folder)


def test_a_bad_variable_is_named(folder: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"environment.*port"):
        load_settings({}, {"MODELFORGE_PORT": "eighty"}, folder)


def test_an_unknown_flag_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"command line.*colour"):
        load_settings({"colour": True}, {}, folder)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "forge.lan"])  # noqa: S104 - to be refused
def test_an_address_that_others_reach_needs_tls_here_or_on_the_way(folder: Path, host: str) -> None:
    for flags in ({}, {"require_token": True}):
        with pytest.raises(SettingsInvalid, match="--tls-cert"):
            load_settings({"host": host, **flags}, {}, folder)
    for flags in ({"behind_proxy": True}, {"tls_cert": folder / "c", "tls_key": folder / "k"}):
        assert not load_settings({"host": host, **flags}, {}, folder).is_local


@pytest.mark.parametrize("half", ["tls_cert", "tls_key"])
def test_half_of_what_tls_needs_is_refused(folder: Path, half: str) -> None:
    with pytest.raises(SettingsInvalid, match="together"):
        load_settings({half: folder / "pem"}, {}, folder)


@pytest.mark.parametrize("layer", ["file", "variable", "flag"])
def test_the_address_is_looked_at_wherever_it_comes_from(folder: Path, layer: str) -> None:
    if layer == "file":
        write(folder, 'host = "0.0.0.0"')
    environ = {"MODELFORGE_HOST": "0.0.0.0"} if layer == "variable" else {}  # noqa: S104 - to be refused
    flags = {"host": "0.0.0.0"} if layer == "flag" else {}  # noqa: S104 - to be refused
    with pytest.raises(SettingsInvalid, match="--tls-cert"):
        load_settings(flags, environ, folder)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_permission(folder: Path, host: str) -> None:
    assert load_settings({"host": host}, {}, folder).host == host


def test_a_variable_that_is_no_setting_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="prot"):
        load_settings({}, environ={"MODELFORGE_PROT": "1"}, folder=tmp_path)


def test_an_empty_variable_sets_nothing(tmp_path: Path) -> None:
    environ = {"MODELFORGE_PORT": "", "MODELFORGE_ALLOWED_HOSTS": "", "MODELFORGE_URL": "http://127.0.0.1:1"}
    assert load_settings({}, environ=environ, folder=tmp_path) == load_settings({}, environ={}, folder=tmp_path)


@pytest.mark.parametrize(
    "origin", ["*", "null", "http://a/", "http://a/path", "a:80", "ftp://a", "http://", "http://a\n"]
)
def test_an_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    with pytest.raises(SettingsInvalid, match="allowed_origins"):
        load_settings({"allowed_origins": [origin]}, environ={})
