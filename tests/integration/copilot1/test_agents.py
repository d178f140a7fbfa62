"""Original agents on our manager: real manager, Prosody, chirp_server and Chirp tools."""

import pytest

from copilot_agent.protocol.job import JobState
from tests.integration.copilot1.settings import Setting

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIMULATION = b"""#!/bin/sh
echo "events $1, beam $BEAM, $3"
echo "to stderr" >&2
awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) s += i; print s }' > sum.txt
mkdir -p histograms && sort -r "$2" > histograms/mass.txt
"""


async def test_a_simulation_comes_back_with_outputs_and_logs(shared: Setting) -> None:
    job = await shared.submit(
        "./simulate.sh",
        "1000",
        "cards.dat",
        "it's * $HOME; exit 3",
        inputs=[
            await shared.upload("simulate.sh", SIMULATION),
            await shared.upload("cards.dat", b"1\n2\n3\n"),
        ],
        outputs=[{"name": "sum.txt"}, {"name": "histograms/mass.txt"}],
        environment={"BEAM": "7 TeV; $HOME 'p p'"},
    )
    await shared.works()
    view = await shared.ended(job)
    assert view.state is JobState.SUCCEEDED, (view.message, shared.manager.said)
    fetched = await shared.client.files.fetch_outputs(view, shared.root / "fetched")
    contents = {str(p.relative_to(shared.root / "fetched" / job)): p.read_text() for p in fetched}
    assert contents == {
        "sum.txt": "499500\n",
        "histograms/mass.txt": "3\n2\n1\n",
        "stdout.log": "events 1000, beam 7 TeV; $HOME 'p p', it's * $HOME; exit 3\n",
        "stderr.log": "to stderr\n",
    }
