"""The application as `vm-launcher boinc-project` assembles it, once for all tests."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory, cache: Path, launcher_file: Path) -> Path:
    top = tmp_path_factory.mktemp("application")
    version = top / "apps/copilot/1.00/x86_64-pc-linux-gnu__copilot_vm"
    version.mkdir(parents=True)
    shutil.copy2(launcher_file, version / "vm-launcher_1.00")
    image = cache / "image"
    names = {"kernel": "vmlinux", "initrd": "initrd", "base": "base.squashfs", "agent": "agent.squashfs"}
    files = []
    for layer in json.loads((image / "manifest.json").read_text())["layers"]:
        src = image / layer["file"] if layer["packing"] == "none" else image / "unpacked" / layer["unpacked_sha256"]
        shutil.copyfile(src, version / (names[layer["role"]] + "_1"))
        files.append((names[layer["role"]] + "_1", names[layer["role"]]))
    for name in ("manifest.json", "manifest.json.sig", "image-key.pub"):
        shutil.copyfile(image / name, version / f"{name}_1")
        files.append((f"{name}_1", name))
    (version / "launcher.toml").write_text("")
    files.append(("launcher.toml", "launcher.toml"))
    xml = "".join(f"<file><physical_name>{a}</physical_name><logical_name>{b}</logical_name></file>\n" for a, b in files)
    (version / "version.xml").write_text(
        f"<version><file><physical_name>vm-launcher_1.00</physical_name><main_program/></file>{xml}"
        "<is_wrapper/><dont_throttle/><api_version>7.20.0</api_version></version>"
    )
    templates = top / "templates"
    templates.mkdir()
    (templates / "copilot_in").write_text(
        "<input_template><file_info><number>0</number></file_info><workunit><file_ref><file_number>0</file_number>"
        "<open_name>enrolment</open_name></file_ref><command_line>boinc-task</command_line>"
        "<rsc_fpops_est>1e14</rsc_fpops_est><rsc_fpops_bound>1e16</rsc_fpops_bound><rsc_disk_bound>4e9</rsc_disk_bound></workunit></input_template>"
    )
    (templates / "copilot_out").write_text(
        "<output_template><file_info><name><OUTFILE_0/></name><generated_locally/><upload_when_present/>"
        "<max_nbytes>1e8</max_nbytes><url><UPLOAD_URL/></url></file_info><result><file_ref><file_name><OUTFILE_0/></file_name>"
        "<open_name>receipts</open_name></file_ref><report_immediately/></result></output_template>"
    )
    return top
