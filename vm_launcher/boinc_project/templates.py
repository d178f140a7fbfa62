"""Texts for a project's directory: job templates, plan class, and pieces of its configuration.

Formats: BOINC's create_work, its plan class specification, xadd and config.xml.
"""

from vm_launcher.boinc.task_settings import TaskSettings
from vm_launcher.boinc_project.bounds import bounds, longest_trickle
from vm_launcher.boinc_project.names import ENROLMENT, MAIN_ARGUMENT, PLAN_CLASS, RECEIPTS
from vm_launcher.receipts import MOST_UPLOADED_BYTES

VARIETY = "copilot_runtime"
"""Of the trickles that carry the running time."""
GRANTED_BY = {"receipts": "grant-credit", "trickles": "trickle_credit"}
"""Daemons, by the way in which credit comes."""
_OLDEST_CLIENT = 72000
_OLDEST_LIBC = 236


def input_template(settings: TaskSettings, results: int) -> str:
    """`results`: how many of a workunit may ever be sent; its secret must allow as many."""
    limits = bounds(settings)
    return f"""\
<input_template>
    <file_info>
        <number>0</number>
    </file_info>
    <workunit>
        <file_ref>
            <file_number>0</file_number>
            <open_name>{ENROLMENT}</open_name>
        </file_ref>
        <command_line>{MAIN_ARGUMENT}</command_line>
        <rsc_fpops_est>{limits.fpops_estimate:.0f}</rsc_fpops_est>
        <rsc_fpops_bound>{limits.fpops_bound:.0f}</rsc_fpops_bound>
        <rsc_memory_bound>{limits.memory}</rsc_memory_bound>
        <rsc_disk_bound>{limits.disk}</rsc_disk_bound>
        <delay_bound>{limits.delay}</delay_bound>
        <min_quorum>1</min_quorum>
        <target_nresults>1</target_nresults>
        <max_success_results>1</max_success_results>
        <max_error_results>{results}</max_error_results>
        <max_total_results>{results}</max_total_results>
    </workunit>
</input_template>
"""


def output_template() -> str:
    """Nothing may stand between `<file_info>` and its line's end: the server looks for both."""
    return f"""\
<output_template>
    <file_info>
        <name><OUTFILE_0/></name>
        <generated_locally/>
        <upload_when_present/>
        <max_nbytes>{MOST_UPLOADED_BYTES}</max_nbytes>
        <url><UPLOAD_URL/></url>
    </file_info>
    <result>
        <file_ref>
            <file_name><OUTFILE_0/></file_name>
            <open_name>{RECEIPTS}</open_name>
        </file_ref>
        <report_immediately/>
    </result>
</output_template>
"""


def plan_class(settings: TaskSettings) -> str:
    """A piece of plan_class_spec.xml."""
    return f"""\
<plan_class>
    <name>{PLAN_CLASS}</name>
    <min_ncpus>1</min_ncpus>
    <max_threads>{settings.vm.cpus}</max_threads>
    <nthreads_cmdline>1</nthreads_cmdline>
    <min_core_client_version>{_OLDEST_CLIENT}</min_core_client_version>
    <min_libc_version>{_OLDEST_LIBC}</min_libc_version>
</plan_class>
"""


def project_xml(app: str) -> str:
    """A piece of project.xml, for bin/xadd."""
    return f"""\
<app>
    <name>{app}</name>
    <user_friendly_name>Cloud Co-Pilot</user_friendly_name>
</app>
"""


def config_xml(app: str, settings: TaskSettings) -> str:
    """Daemons for config.xml. Credit comes by one way only: two would grant work twice."""
    credit = settings.credit
    granting = GRANTED_BY[credit.way]
    if credit.way == "trickles":
        granting += f" --variety {VARIETY} --max_runtime {longest_trickle(settings)}"
    validating = f'script_validator --app {app} --no_credit --init_script "receipt-check files"'
    commands = (validating, granting, f"sample_dummy_assimilator --app {app}")
    daemons = "".join(
        f"    <daemon>\n        <cmd>{command}</cmd>\n    </daemon>\n" for command in commands
    )
    other = GRANTED_BY[credit.other]
    return f"<!-- never {other} as well: see docs/credit.md -->\n<daemons>\n{daemons}</daemons>\n"
