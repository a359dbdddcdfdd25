"""The page over TLS, as a plant opens it to tablets, with a certificate of an authority that is made here."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import expect

from protocol.broker import BrokerSettings
from sim.station import LOOPBACK, free_port
from tests.host.dashboard.browsing import fill_login, needs_chromium, open_browser, open_tab
from tests.host.dashboard.running import PASSWORD, USER, Client, Page, Speaker, page_of, refuse, summary, write_config
from tests.protocol.test_credentials import make_authority, make_certificate

LINE = "encrypted"

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder, "plant")
    make_certificate(folder, "plant", "page", LOOPBACK)
    return folder


@pytest.fixture(scope="module")
def tap_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def page(folder: Path, tap_port: int, broker: BrokerSettings) -> Iterator[Page]:
    trusting = ssl.create_default_context(cafile=str(folder / "plant.pem"))
    options = ("--certificate", str(folder / "page.pem"), "--key", str(folder / "page.key"))
    page = page_of(write_config(folder, broker, LINE, tap_port), *options, tls=trusting)
    with page.run():
        yield page
    assert "Traceback" not in (folder / "page.log").read_text()


def test_pages_cookies_and_live_events_are_encrypted(page: Page) -> None:
    client = page.client
    status, headers, body = client.ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"/page/main.js" in body
    right = json.dumps({"user": USER, "password": PASSWORD}).encode()
    _, headers, _ = client.ask("POST", "/api/login", right, {"Content-Type": "application/json"})
    flags = {flag.strip().lower() for flag in headers["set-cookie"].split(";")[1:]}
    assert {"secure", "httponly", "samesite=strict"} <= flags
    client.log_in()
    assert client.get("/api/session")["user"] == USER
    assert summary(client)["line"] == LINE


def test_who_does_not_know_the_authority_does_not_come_to_the_page(page: Page) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(page.port, tls=ssl.create_default_context()).ask("GET", "/")


def test_nothing_is_said_in_clear(page: Page) -> None:
    with pytest.raises(ConnectionError):  # it is closed without a word
        Client(page.port).ask("GET", "/api/latest")
    assert page.client.ask("GET", "/")[0] == 200


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    files = ("--certificate", str(folder / "page.pem"), "--key", str(folder / "plant.key"))
    result = refuse("--config", str(folder / "line.toml"), "--folder", str(folder), "--listen", "127.0.0.1:0", *files)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert "plant.key" in line
    assert "PEM" in line


@needs_chromium
def test_a_browser_logs_in_and_sees_parts_live(page: Page, folder: Path, tap_port: int, broker: BrokerSettings) -> None:
    speaker, errors = Speaker(broker, LINE, tap_port), list[str]()
    trust = f"--ignore-certificate-errors-spki-list={fingerprint(folder / 'page.pem')}"  # of this key alone
    with speaker.alive(), open_browser(trust) as browser, open_tab(browser, page.url, "tablet", errors) as tab:
        speaker.say_state("running")
        expect(tab.locator("#state")).to_have_text("running")
        speaker.wait_until_seen(page.client)
        part = speaker.part(1, decision="REJECT", score=2.5)
        speaker.say(part)
        expect(tab.locator("#strip .tile").first).to_have_attribute("aria-label", "part 1, REJECT, score 2.50")
        tab.locator("#log-in").click()
        fill_login(tab)
        expect(tab.locator("#user")).to_have_text(USER)
        (cookie,) = tab.context.cookies()
        assert (cookie.get("secure"), cookie.get("httpOnly"), cookie.get("sameSite")) == (True, True, "Strict")
        assert tab.evaluate("[location.protocol, isSecureContext, document.cookie]") == ["https:", True, ""]
    speaker.close()
    assert errors == []


def fingerprint(certificate: Path) -> str:
    """SHA-256 of its public key, as Chromium wants it: base64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()
