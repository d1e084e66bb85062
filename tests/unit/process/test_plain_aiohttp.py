"""aiohttp without the system's certificates, in a process of its own: this one has read them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trustme

PROGRAM = """
import asyncio, ssl, sys
import ari_app.process.plain_aiohttp
import aiohttp
from aiohttp import connector, web

async def main():
    trust = connector._SSL_CONTEXT_VERIFIED
    ours = ssl.create_default_context()
    print(trust.cert_store_stats()["x509_ca"], ours.cert_store_stats()["x509_ca"])
    for certificate in sys.argv[1:]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server = web.AppRunner(web.Application())
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = server.addresses[0][1]
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"https://127.0.0.1:{port}/") as response:
                    print(response.status, trust.cert_store_stats()["x509_ca"])
            except aiohttp.ClientConnectorCertificateError:
                print("refused")
        await server.cleanup()

asyncio.run(main())
"""


def test_they_are_read_before_a_connection_that_brings_no_trust(tmp_path: Path) -> None:
    authorities = trustme.CA(), trustme.CA()
    files = [str(tmp_path / "known.pem"), str(tmp_path / "unknown.pem")]
    for authority, file in zip(authorities, files, strict=True):
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(file)
    system = tmp_path / "system.pem"
    authorities[0].cert_pem.write_to_path(str(system))
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files],
        env={**os.environ, "SSL_CERT_FILE": str(system), "SSL_CERT_DIR": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.splitlines() == ["0 1", "404 1", "refused"], told.stderr
