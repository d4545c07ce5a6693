"""The server's certificate: read, refused, renewed while devices are connected."""

import asyncio
import logging
import os
import ssl

import pytest

from cloud.listener import bind, check_exposure, url_of
from cloud.reloading import reload_all
from cloud.tls import ServerTls
from cloud.tokens import TokenStore
from lambda_split.errors import TlsFileInvalid, TokenFileInvalid, UsageError
from tests.certificates import Issuer
from tests.cloud.serving import Device, Reference, hidden_states, run, same, serving, token_file


@pytest.fixture
def issuer(tmp_path):
    return Issuer(tmp_path)


def test_a_session_over_tls(model, issuer):
    context = ssl.create_default_context(cafile=issuer.ca_file)

    async def scenario():
        async with (
            serving(model, tls=issuer.issue("server").tls()) as url,
            Device.connected(url, model.hello(), ssl=context) as device,
        ):
            return url, await device.forward(0, hidden_states(5))

    url, found = run(scenario())
    assert url.startswith("wss://127.0.0.1:")
    assert same(found, Reference(model.trunk).forward(0, hidden_states(5)))


async def handshake(url, context, name="127.0.0.1"):
    """The names in the certificate that a client sees, and the TLS version."""
    port = int(url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    connection = writer.get_extra_info("ssl_object")
    found = connection.getpeercert()["subjectAltName"], connection.version()
    writer.close()
    return found


def test_a_renewed_certificate_is_for_new_connections_and_ends_no_open_one(model, issuer):
    certificate = issuer.issue("server", "127.0.0.1", "old.example")
    tls = certificate.tls()
    context = ssl.create_default_context(cafile=issuer.ca_file)

    async def scenario():
        async with (
            serving(model, tls=tls) as url,
            Device.connected(url, model.hello(), ssl=context) as device,
        ):
            rows = [await device.forward(0, hidden_states(2, 0))]
            names = [(await handshake(url, context))[0]]
            issuer.replace(certificate, "127.0.0.1", "new.example")
            names.append((await handshake(url, context))[0])
            assert reload_all(tls)
            names.append((await handshake(url, context))[0])
            # A wrong key must not spoil what is in use.
            certificate.key.write_bytes(issuer.issue("stranger").key.read_bytes())
            assert not reload_all(tls)
            names.append((await handshake(url, context))[0])
            rows.append(await device.forward(2, hidden_states(2, 1)))
            return names, rows

    names, rows = run(scenario())
    second = [dict(found for found in pairs if found[0] == "DNS") for pairs in names]
    assert [found["DNS"] for found in second] == ["old.example"] * 2 + ["new.example"] * 2
    reference = Reference(model.trunk)
    for index, row in enumerate(rows):
        assert same(row, reference.forward(2 * index, hidden_states(2, index)))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"], ids=["without-sni", "with-sni"])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_versions_that_are_served(model, issuer, newest, name):
    certificate = issuer.issue("server")
    context = ssl.create_default_context(cafile=issuer.ca_file)
    context.maximum_version = newest

    async def scenario():
        async with serving(model, tls=certificate.tls()) as url:
            return (await handshake(url, context, name))[1]

    assert run(scenario()) == newest.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_what_is_too_old_is_not_served(model, issuer):
    context = ssl.create_default_context(cafile=issuer.ca_file)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")

    async def scenario():
        async with serving(model, tls=issuer.issue("server").tls()) as url:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(url, context)

    run(scenario())


def test_renegotiation_is_off(issuer):
    assert issuer.issue("server").tls().context.options & ssl.OP_NO_RENEGOTIATION


def test_a_failed_handshake_says_nothing_worrying(model, issuer, caplog):
    caplog.set_level(logging.DEBUG)
    context = ssl.create_default_context()  # knows no such issuer

    async def scenario():
        async with serving(model, tls=issuer.issue("server").tls()) as url:
            with pytest.raises(ssl.SSLCertVerificationError):
                await handshake(url, context)
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()
            writer.close()

    run(scenario())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def broken(certificate, what, issuer, folder):
    if what == "no certificate":
        certificate.cert.unlink()
    elif what == "no key":
        certificate.key.unlink()
    elif what == "a folder":
        return ServerTls(folder, certificate.key)
    elif what == "an impossible name":
        return ServerTls("a\0b", certificate.key)
    elif what == "garbage":
        certificate.cert.write_text("garbage")
    elif what == "an empty key":
        certificate.key.write_text("")
    elif what == "another's key":
        certificate.key.write_bytes(issuer.issue("other").key.read_bytes())
    elif what == "swapped":
        return ServerTls(certificate.key, certificate.cert)
    return certificate.tls()


@pytest.mark.parametrize(
    "what",
    [
        "no certificate",
        "no key",
        "a folder",
        "an impossible name",
        "garbage",
        "an empty key",
        "another's key",
        "swapped",
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, issuer, what):
    certificate = issuer.issue("server")
    with pytest.raises(TlsFileInvalid) as caught:
        broken(certificate, what, issuer, tmp_path)
    sentence = str(caught.value)
    assert caught.value.path in sentence
    assert "\n" not in sentence
    assert "PRIVATE" not in sentence
    assert ("does not belong" in sentence) == (what == "another's key")


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked(issuer):
    from cryptography.hazmat.primitives import serialization

    certificate = issuer.issue("server")
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
    certificate.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TlsFileInvalid, match="pass phrase"):
        certificate.tls()


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_that_everybody_can_read_is_warned_about(issuer, caplog, mode, warned):
    certificate = issuer.issue("server")
    certificate.key.chmod(mode)
    certificate.tls()
    assert ("open to other users" in caplog.text) == warned


def test_one_file_that_cannot_be_read_again_keeps_no_other_from_it(tmp_path, issuer, caplog):
    certificate = issuer.issue("server")
    tls = certificate.tls()
    tokens = TokenStore(token_file(tmp_path, someone="s3cret"))
    token_file(tmp_path, other="an0ther")
    certificate.cert.unlink()
    assert not reload_all(tls, None, tokens)
    assert tokens.grant("Bearer an0ther").name == "other"
    assert "the old one stays in use" in caplog.text
    assert str(certificate.cert) in caplog.text
    token_file(tmp_path, "s3cret-in-plain-text")
    caplog.clear()
    with pytest.raises(TokenFileInvalid):
        tokens.reload()
    assert not reload_all(tokens)
    assert tokens.grant("Bearer an0ther").name == "other"
    assert "line 1" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("has_tls", [True, False])
@pytest.mark.parametrize("has_tokens", [True, False])
@pytest.mark.parametrize("insecure", [True, False])
def test_other_machines_are_served_with_tls_and_tokens_only(
    loopback, has_tls, has_tokens, insecure
):
    def check():
        check_exposure(
            "host.example",
            loopback=loopback,
            has_tls=has_tls,
            has_tokens=has_tokens,
            insecure=insecure,
        )

    if loopback or insecure or (has_tls and has_tokens):
        check()
        return
    with pytest.raises(UsageError) as caught:
        check()
    sentence = str(caught.value)
    assert "host.example" in sentence
    assert "--insecure" in sentence
    assert ("--tls-cert" in sentence) == (not has_tls)
    assert ("--token-file" in sentence) == (not has_tokens)


def test_the_address_says_that_it_is_tls():
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    assert url_of(listener, tls=True) == f"wss://127.0.0.1:{port}"
    listener.close()
