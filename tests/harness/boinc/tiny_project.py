"""A project directory with the smallest application, made by hand in BOINC's formats."""

from __future__ import annotations

from pathlib import Path

APP = "tiny"
PLATFORM = "x86_64-pc-linux-gnu"
PROGRAM = f"tiny_1.00_{PLATFORM}"

_VERSION = f"""<version>
   <file>
      <physical_name>{PROGRAM}</physical_name>
      <main_program/>
   </file>
   <file>
      <physical_name>layer_1</physical_name>
      <logical_name>layer</logical_name>
      <gzip/>
   </file>
   <is_wrapper/>
   <api_version>7.20.0</api_version>
</version>
"""
_INPUT = """<input_template>
   <file_info>
      <number>0</number>
   </file_info>
   <workunit>
      <file_ref>
         <file_number>0</file_number>
         <open_name>greeting</open_name>
      </file_ref>
      <command_line>seconds=2</command_line>
      <rsc_fpops_est>1e10</rsc_fpops_est>
      <rsc_fpops_bound>1e13</rsc_fpops_bound>
   </workunit>
</input_template>
"""
_OUTPUT = """<output_template>
   <file_info>
      <name><OUTFILE_0/></name>
      <generated_locally/>
      <upload_when_present/>
      <max_nbytes>100000</max_nbytes>
      <url><UPLOAD_URL/></url>
   </file_info>
   <result>
      <file_ref>
         <file_name><OUTFILE_0/></file_name>
         <open_name>receipts</open_name>
      </file_ref>
      <report_immediately/>
   </result>
</output_template>
"""
APP_INFO = f"""<app_info>
   <app><name>{APP}</name></app>
   <file_info><name>mine.py</name><executable/></file_info>
   <app_version>
      <app_name>{APP}</app_name>
      <version_num>100</version_num>
      <api_version>7.20.0</api_version>
      <file_ref><file_name>mine.py</file_name><main_program/></file_ref>
   </app_version>
</app_info>
"""


def program() -> bytes:
    return Path(__file__).with_name("tiny_app.py").read_bytes()


def tiny_project(directory: Path) -> Path:
    version = directory / "apps" / APP / "1.00" / PLATFORM
    version.mkdir(parents=True)
    (version / PROGRAM).write_bytes(program())
    (version / PROGRAM).chmod(0o755)
    (version / "layer_1").write_bytes(b"the same again and again\n" * 10_000)
    (version / "version.xml").write_text(_VERSION)
    templates = directory / "templates"
    templates.mkdir()
    (templates / f"{APP}_in").write_text(_INPUT)
    (templates / f"{APP}_out").write_text(_OUTPUT)
    return directory
