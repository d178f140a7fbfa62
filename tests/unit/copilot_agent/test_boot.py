"""The agent's first steps in the guest."""

import json
import subprocess
import sys

_SCRIPT = """
import gc, json, os
os.environ["SSL_CERT_FILE"] = "/etc/ssl/certs/ca-certificates.crt"
from copilot_agent.boot import lean_imports
with lean_imports():
    import aiohttp.connector
    from copilot_agent.transports.connections import tls_context
print(json.dumps({
    "aiohttps": len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()),
    "ours": len(tls_context().get_ca_certs()),
    "file": os.environ["SSL_CERT_FILE"],
    "collects": gc.isenabled(),
}))
"""


def test_only_the_agents_own_connections_read_the_certificates() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["aiohttps"] == 0, "importing aiohttp read the certificates in vain"
    assert found["ours"] > 100
    assert found["file"] == "/etc/ssl/certs/ca-certificates.crt"
    assert found["collects"]
