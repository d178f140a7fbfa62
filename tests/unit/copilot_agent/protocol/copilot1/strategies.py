"""Messages and commands as a well-behaved component may send them.

What a model needs goes in under its wire name, where `builds` looks for it.
"""

from string import ascii_letters, digits

from hypothesis import strategies as st

from copilot_agent.protocol.copilot1 import job_commands as job
from copilot_agent.protocol.copilot1 import monitor_commands as monitor
from copilot_agent.protocol.copilot1.commands import UnknownCommand
from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.copilot1.machine import Machine
from copilot_agent.protocol.copilot1.tree import Tree

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Cn"]), max_size=30)
texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\r\n"), max_size=30
)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,12}", fullmatch=True).filter(
    lambda name: not name.lower().startswith("xml")
)
files = st.text(ascii_letters + digits, min_size=1, max_size=12).map(lambda name: f"{name}.sh")
paths = st.lists(files, min_size=1, max_size=4).map("/".join)
job_names = st.uuids().map(str) | files
urls = st.builds("{}.org:{}".format, files, st.integers(1, 65535))
statuses = st.integers(0, 255).map(lambda code: code << 8) | st.integers(1, 64)
numbers = st.floats(allow_nan=False, allow_infinity=False)

trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, anything, max_size=4),
    lambda inner: st.dictionaries(names, anything | inner, max_size=4),
    max_leaves=6,
)

amounts = st.none() | st.integers(0, 10**12)
letters = st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters='"')
quoted = st.text(letters, max_size=9)
raw = st.sampled_from(['"machine"', '(other.Type=="Job")', "7", "", '"a;b"', "{1, 2}", "[x]", "ä"])
machines = st.builds(
    Machine,
    host=quoted,
    platform=quoted,
    kernel=quoted,
    memory_mib=amounts,
    free_memory_mib=amounts,
    swap_mib=amounts,
    free_swap_mib=amounts,
    free_disk_kib=amounts,
    others=st.dictionaries(st.sampled_from(["Type", "Version", "Ce_Host", "Requirements"]), raw),
)

jobs = st.builds(
    job.Job,
    id=job_names,
    chirpUrl=urls,
    input_dir=paths,
    input_files=st.lists(files, max_size=4).map(tuple),
    command=files,
    arguments=texts,
    environment=texts,
    packages=st.lists(files.map("VO_ALICE@Root::{}".format), max_size=3).map(tuple),
    output_dir=st.none() | paths,
    validation_script=st.none() | files,
)
_about: dict[str, st.SearchStrategy[str | None]] = {
    "jobID": job_names,
    "agent_host": lines,
    "job_data": st.none() | texts,
}

asking = st.one_of(
    st.builds(job.WantJob, machine=machines, agent_host=lines),
    st.builds(job.GetJob, machine=machines, agent_host=lines),
)
commands = st.one_of(
    asking,
    st.builds(job.HaveJob, require_file=st.none() | paths.map("/cvmfs/{}".format)),
    st.builds(job.Sleep),
    st.builds(job.RunJob, job_data=st.none() | texts, job=jobs),
    st.builds(job.WantOutputDir, **_about),
    st.builds(job.HaveOutputDir),
    st.builds(job.GetOutputDir, **_about),
    st.builds(
        job.StoreOutputDir,
        output_dir=paths,
        outputChirpUrl=urls,
        jobID=job_names,
        job_data=st.none() | texts,
    ),
    st.builds(
        job.JobDone,
        exitCode=statuses,
        validate_exit_status=st.none() | statuses,
        **_about,
    ),
    st.builds(job.Redirect, referral=files.map("{}@copilot.test/x y".format), info=trees),
    st.builds(job.ErrorCommand, error_string=texts),
    st.builds(monitor.ReportEvent, component=lines, event=files),
    st.builds(monitor.ReportEventDuration, component=lines, event=files, duration=numbers),
    st.builds(monitor.ReportEventValue, component=lines, event=files, value=numbers),
    st.builds(monitor.StoreEventDetails, details=files),
    st.builds(monitor.UpdateEventDetails, session=lines, updates=files),
    st.builds(monitor.Ping),
    st.builds(monitor.Pong),
    st.builds(monitor.GetStatus, component=lines),
    st.builds(monitor.HaveStatus, component=lines, status=texts),
    names.map("storeX{}".format).flatmap(
        lambda name: trees.map(
            lambda tree: UnknownCommand(command=name, info={**tree, "command": name})
        )
    ),
)

addresses = st.just("") | lines.map("agent@copilot.test/{}".format)
message_ids = st.uuids().map(str)
envelopes = st.builds(
    Envelope,
    sender=addresses,
    recipient=addresses,
    id=st.just("") | message_ids,
    ack=st.just("") | message_ids,
    noack=st.booleans(),
    type=st.sampled_from(["", "groupchat", "normal"]),
    info=st.none() | trees,
)
